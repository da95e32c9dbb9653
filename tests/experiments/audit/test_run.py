"""A run's folder has one reader and writer: no other module spells what lies in it."""

import json
import re
from pathlib import Path

import pytest

from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from experiments.sandbagging.__main__ import EXPERIMENT

AUDIT = Path(__file__).parents[3] / "experiments" / "audit"
# a study's folder is its own module's, and its edits are numbered where they are made
OWN = ("run.py", "steering/study_folder.py", "steering/ablation.py")
ENTRIES = sorted(
    name
    for name, entry in vars(Run).items()
    if isinstance(entry, property) and name not in ("stored", "studies", "all_projections")
)


def spelled(text: str) -> list[str]:
    """The entries of a run's folder that a module's strings name."""
    files = [Path(getattr(Run(Path()), name)).name for name in ENTRIES]
    folders = ["responses", "captured", "traces", "projections", "contrast", "chats"]
    wanted = [*(rf'"{re.escape(f)}"' for f in files if "." in f), *(rf'/ "{f}"' for f in folders)]
    wanted.append(r'/ f?"[^"]*\.(?:nc|csv|png|svg|jsonl)"')
    return [found for pattern in wanted for found in re.findall(pattern, text)]


def test_no_other_module_spells_an_entry() -> None:
    modules = [p for p in AUDIT.rglob("*.py") if p.relative_to(AUDIT).parts[0] != "discovery"]
    others = [p for p in modules if p.relative_to(AUDIT).as_posix() not in OWN]
    assert {str(p): found for p in others if (found := spelled(p.read_text()))} == {}


def test_a_module_that_does_is_seen() -> None:
    assert spelled('tk.open(folder / "means.nc")') == ['"means.nc"', '/ "means.nc"']
    assert spelled('figure.savefig(folder / f"{name}.png")') == ['/ f"{name}.png"']
    assert spelled('folder / "responses" / f"{arm}.nc"') == ['/ "responses"', '/ f"{arm}.nc"']
    assert len(spelled((AUDIT / "run.py").read_text())) >= len(ENTRIES)


def test_every_entry_lies_in_the_folder_and_has_a_place_of_its_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    places = [getattr(run, name) for name in ENTRIES]
    places += [run.responses("clean"), run.captured("a/b"), run.traces("a/b")]
    places += [run.projections("a/b"), run.story("x/y"), run.chats("x/y"), run.steering("0")]
    assert len(set(places)) == len(places)
    assert all(tmp_path in place.parents for place in places)


def test_a_folder_holding_what_a_killed_write_left_is_new_and_one_holding_a_file_is_not(
    tmp_path: Path,
) -> None:
    made_of = described(EXPERIMENT.preset("tiny"))
    (tmp_path / ".settings.json.31066-139945597299584.part").write_text("{")
    Run(tmp_path).claim(made_of)
    assert Run(tmp_path).settings()["settings"] == json.loads(json.dumps(made_of["settings"]))
    (other := tmp_path / "other").mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"it holds notes\.txt and no run"):
        Run(other).claim(made_of)


def test_a_run_says_what_it_was_made_of_and_what_has_finished(tmp_path: Path) -> None:
    run, made_of = Run(tmp_path / "run"), described(EXPERIMENT.preset("tiny"))
    run.claim(made_of)
    run.claim(made_of)
    run.table.write_text("a table")
    run.finish("analyse", [run.table])
    assert run.has_finished("analyse")
    assert not run.has_finished("respond")
    run.table.write_text("a longer table")
    assert not run.has_finished("analyse")
    with pytest.raises(ValueError, match=r"null\.seed: 0 there, 1 now"):
        run.claim(described(EXPERIMENT.preset("tiny", {"seed": 1})))
