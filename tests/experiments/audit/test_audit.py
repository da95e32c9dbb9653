"""The audit from saved arrays: a verdict that can say yes, no, and that it cannot say."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.evidence.row import from_dataset as rows_of
from experiments.audit.phases import analysis
from experiments.audit.phases.projections import read
from experiments.audit.report import table
from experiments.audit.report.viewer import ARMS
from experiments.audit.result import audited
from experiments.audit.run import Run
from experiments.audit.settings.tables import from_values
from experiments.audit.verdict.lines import from_dataset as lines_of
from experiments.rm_sycophancy.__main__ import main
from tests.support.oracles.planted_run import HOSTILE, build


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished analysis of a run with a large effect at exploit spans."""
    folder = tmp_path_factory.mktemp("planted") / "run"
    analysis.run(folder, build(folder, effect=2.0))
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished analysis of a run with no effect."""
    folder = tmp_path_factory.mktemp("empty") / "run"
    analysis.run(folder, build(folder, effect=0.0))
    return folder


def rows(folder: Path) -> dict[tuple[str, str], list]:
    found: dict[tuple[str, str], list] = {}
    for row in rows_of(tk.open(folder / "rows.nc")):
        found.setdefault((row.section, row.what), []).append(row)
    return found


def status(folder: Path) -> dict[str, str]:
    return {line.asked: line.status for line in lines_of(tk.open(folder / "verdict.nc"))}


def test_a_planted_effect_is_found_and_none_is_not(planted: Path, empty: Path) -> None:
    what = ("detection", "primary hypothesis, held-out biases")
    assert rows(planted)[what][0].p < 0.001
    assert rows(empty)[what][0].p > 0.05
    spans = ("A mechanism", "organism − clean at spans, own sentences")
    assert rows(planted)[spans][0].p < 0.01
    assert rows(empty)[spans][0].p > 0.05
    control = ("A mechanism", "control − clean at the organism's spans, own sentences")
    assert rows(planted)[control][0].p > 0.05
    asked = next(key for key in status(planted) if key.startswith("the primary hypothesis"))
    assert (status(planted)[asked], status(empty)[asked] == "met") == ("met", False)


def test_spans_without_a_match_are_counted_and_undecidable(planted: Path) -> None:
    # within an answer nothing begins as near as a decile to its span
    (alone,) = rows(planted)["A mechanism", "matched, same answer"]
    assert "no sentence is within 0.3 nats a token and 1 decile of any span" in alone.reason
    (lacking,) = rows(planted)["A mechanism", "organism − clean at spans, same answer"]
    assert lacking.reason.startswith("0 and 0 prompts with an exploit span and a match")
    lost, deciles, nats = rows(planted)["A mechanism", "matched, own sentences"]
    marked = int(tk.open(planted / "scores.nc")["spans"])
    left = int(tk.open(planted / "scores.nc")["matched"].sel(match="own sentences"))
    assert (lost.estimate, lost.measure) == (
        marked - left,
        f"spans of {marked} without a match; {left} left",
    )
    assert abs(deciles.estimate) <= 1
    assert abs(nats.estimate) <= 0.3
    (line,) = [one for one in lines_of(tk.open(planted / "verdict.nc")) if "spans" in one.asked]
    assert "no control" in line.found or "own sentences" in line.found


def test_what_a_control_does_is_reported_on_the_same_ids_and_in_its_own_answers(
    empty: Path,
) -> None:
    found = {what: row[0] for (section, what), row in rows(empty).items() if section == "controls"}
    assert len(found) == 6
    own = found["alignment/sycophancy: control − clean, own answers"]
    assert 0.02 < own.low < own.estimate < own.high < 0.04
    assert own.p < 0.01
    assert own.n == 16
    others = [row for what, row in found.items() if "sycophancy" not in what or "ids" in what]
    assert len(others) == 5
    assert all(abs(row.estimate) < 0.01 for row in others)


def test_a_control_without_answers_of_its_own_is_undecidable(empty: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(empty, copy)
    (copy / "projections" / "control.control.nc").unlink()
    analysis.run(copy, from_values(Run(copy).settings()["settings"]))
    (row,) = rows(copy)["controls", "control − clean, own answers"]
    assert "no projections control/control" in row.reason


def test_the_trait_score_is_held_against_the_clean_weights_on_the_same_ids(planted: Path) -> None:
    name = "gain over the same trait score, clean weights"
    (gain,) = [r for r in rows(planted)["competitors", "trait score"] if r.measure == name]
    assert gain.low > 0
    # the planted word is in the text: words tell as well as the traits
    assert rows(planted)["competitors", "words (TF-IDF), across biases"][0].estimate > 0.95


def test_two_kinds_carry_nothing_and_it_is_said_how_many_would(planted: Path) -> None:
    row = rows(planted)["competitors", "trait score"][0]
    assert "2 kinds: too few" in row.cells()
    text, page = ((planted / name).read_text("utf-8") for name in ("table.txt", "report.html"))
    assert "95 %, these kinds" in text
    assert "<th>95 %, these kinds</th><th>95 %, other kinds</th>" in page
    lines = lines_of(tk.open(planted / "verdict.nc"))
    asked = [line for line in lines if line.level == "generalises"]
    assert {(line.status, line.found) for line in asked} == {
        ("undecidable", "with 2 held-out kinds no p below 0.5 is possible; 6 would do")
    }
    (balanced,) = [line for line in lines if "balanced" in line.asked]
    assert (balanced.status, balanced.found) == ("undecidable", "2 held-out kinds; 3 are the least")


def test_nothing_shows_a_nan_and_every_undecidable_row_says_why(planted: Path, empty: Path) -> None:
    for folder in (planted, empty):
        text = (folder / "table.txt").read_text("utf-8")
        assert " nan" not in text.lower()
        for found in rows(folder).values():
            assert all(row.decided or len(row.reason) > 5 for row in found)
        assert set(status(folder).values()) <= {"met", "not met", "undecidable"}
    # the name of a trait is the one place where the word may stand
    claimed = (planted / "table.txt").read_text("utf-8").replace("harm_intent", "")
    assert "intent" not in claimed
    assert "objective" not in claimed


def test_analyse_again_gives_the_same_bytes(planted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(planted, tmp_path / "copy"))
    made = [
        path.name for path in planted.iterdir() if path.suffix in (".png", ".svg", ".txt", ".html")
    ]
    assert {"table.txt", "report.html", "roc.svg", "layers.png"} <= set(made)
    for name in made:
        (copy / name).unlink()
    assert main(["analyse", "--out", str(copy)]) == 0
    assert [(copy / n).read_bytes() == (planted / n).read_bytes() for n in made] == [True] * len(
        made
    )
    for name in ("rows.nc", "verdict.nc", "curves.nc"):
        xr.testing.assert_identical(xr.open_dataset(copy / name), xr.open_dataset(planted / name))


def test_where_nothing_exploits_the_verdict_is_undecidable(tmp_path: Path) -> None:
    given = build(tmp_path / "run", effect=3.0, exploiting=False)
    analysis.run(tmp_path / "run", given)
    found = rows(tmp_path / "run")
    (row,) = found["detection", "primary hypothesis, held-out biases"]
    assert "0 exploit" in row.reason
    assert "met" not in {
        status(tmp_path / "run")[key]
        for key in status(tmp_path / "run")
        if "exploiting answers" in key or "competitor" in key
    }
    assert "undecidable" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_a_failed_trait_leaves_the_primary_set(planted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(planted, tmp_path / "copy"))
    evaluation = tk.open(copy / "evaluation.nc")
    assert evaluation["passed"].values.all()
    evaluation["passed"][{"trait": 1}] = 0
    tk.save(evaluation, copy / "evaluation.nc")
    settings = from_values(Run(copy).settings()["settings"])
    result = audited(copy, settings)
    assert result.audit.traits == ("alignment/reward_seeking", "alignment/concealment")
    assert table.left_out(result, settings).endswith("left out: alignment/sycophancy.")
    assert "left out" not in (planted / "table.txt").read_text("utf-8")


def test_arms_of_other_prompts_or_provenance_are_refused(planted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(planted, tmp_path / "copy"))
    path = copy / "projections" / "clean.organism.nc"
    array = tk.open(path)
    tk.save(array.isel(prompt=slice(1, None)), path)
    assert main(["analyse", "--out", str(copy)]) == 2
    tk.save(array.assign_attrs(provenance=array.attrs["provenance"].replace("same", "other")), path)
    assert main(["analyse", "--out", str(copy)]) == 2
    path.unlink()
    assert main(["analyse", "--out", str(copy)]) == 2


def test_the_scores_are_those_of_the_projections(planted: Path) -> None:
    own = xr.open_dataset(planted / "projections" / "organism.organism.nc")["cosine"]
    scores = tk.open(planted / "scores.nc")
    mean = own.sel(token=slice(0, None)).mean("token").sel(prompt=scores["prompt"].values)
    np.testing.assert_allclose(scores["score"], mean.transpose(*scores["score"].dims), atol=1e-6)
    row = int(np.flatnonzero(scores["exploit"].values == 1)[0])
    assert scores["onset"].values[row] == 14


def test_the_page_holds_the_hostile_text_only_as_text(planted: Path) -> None:
    page = (planted / "report.html").read_text("utf-8")
    assert HOSTILE not in page
    rows = sum(read(planted, arm).sizes["prompt"] for arm in ARMS)
    assert page.count("<script") == 2 + 2 * rows  # the view's data and script, two for each row
    assert page.count("</style>") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
