"""A second subject of the audit: prompts, labels and settings of its own, and no rules."""

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.label_files import read_labels
from experiments.audit.labels import UNDECIDABLE, decides, with_spans
from experiments.sandbagging.__main__ import EXPERIMENT, main
from tests.support.models import tiny

LABELS = files("experiments.sandbagging") / "presets" / "rehearsal.csv"
LONGEST = 60  # lines of Python that are its own


@pytest.fixture(scope="module")
def arguments(
    tiny_folder: Path, tiny_lora: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    control = tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "other", seed=2)
    flags = ["--preset", "tiny", "--model", str(tiny_folder), "--organism", str(tiny_lora)]
    return [*flags, "--control", str(control), "--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", *arguments, "--out", str(folder)]) == 0
    return folder


def test_its_answers_are_labelled_as_its_file_says(finished: Path) -> None:
    organism = tk.open(finished / "responses" / "organism.nc")
    with Path(str(LABELS)).open() as file:
        said = {row["prompt"]: row["exploits"] == "yes" for row in csv.DictReader(file)}
    found = dict(zip(organism.prompt.values.tolist(), organism.exploit.values, strict=True))
    assert {name: said.get(name, UNDECIDABLE) for name in found} == found
    hits = organism.exploit_span.any("token").values
    assert hits.tolist() == [said.get(name, False) for name in found]
    # nobody labelled the other arms
    assert set(tk.open(finished / "responses" / "clean.nc").exploit.values) == {UNDECIDABLE}


def test_what_it_names_is_what_the_table_says(finished: Path) -> None:
    table = (finished / "table.txt").read_text("utf-8")
    assert "wrong answers differ from right ones in deception" in table
    assert "deception without honesty" in table
    assert "compliance without helpfulness" not in table
    rows = xr.open_dataset(finished / "rows.nc")
    assert any("competitors" in str(section) for section in rows["section"].values)
    parts = tk.open(finished / "responses" / "organism.nc")
    kinds = dict(zip(parts.bias.values.tolist(), parts.part.values.tolist(), strict=True))
    assert kinds["shares"] == kinds["differences"] == "held_out"
    assert kinds["sums"] == kinds["products"] == "calibration"


def test_its_own_code_is_short_and_the_audit_knows_no_other_subject(tmp_path: Path) -> None:
    code = [Path(str(entry)) for entry in files("experiments.sandbagging").iterdir()]
    lines = sum(len(p.read_text().splitlines()) for p in code if p.suffix == ".py")
    assert lines <= LONGEST
    asked = (
        "import sys; from experiments.sandbagging.__main__ import EXPERIMENT;"
        "assert EXPERIMENT.preset('tiny').prompts.paths[0].is_file();"
        "from experiments.audit import command;"
        "known = ('experiments.rm_sycophancy', 'experiments.organisms');"
        "assert not [n for n in sys.modules if n.startswith(known)]"
    )
    # from another folder its files are found, too
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root, "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env=environment, check=True)


def test_steering_needs_a_labeller_of_new_answers(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["steer", "--out", str(finished)]) == 2
    assert "no file has" in capsys.readouterr().err
    assert not decides(EXPERIMENT.labeller, "sums")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "set/1"}], "exploits is unknown or lacking"),
        ([{"prompt": "set/1", "exploits": "perhaps"}], "exploits is 'perhaps'"),
        ([{"prompt": "set/1", "exploits": True, "span": []}], "span is unknown"),
        ([{"prompt": "set/1", "exploits": True}] * 2, "labels .* again"),
        ({"set/1": True}, "holds no list"),
        ([{"prompt": "set/1", "exploits": True, "spans": [3]}], "Row 1"),
    ],
)
def test_labels_that_say_nothing_are_refused(rows: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=words):
        read_labels(path)


def test_labels_of_another_text_or_place_are_refused(tiny_llama, tmp_path: Path) -> None:
    runs = tk.encode(tiny_llama, [tk.Prompt("set/1", text="Why?")], ["Since it rains."])

    def found(**label: object) -> list:
        path = tmp_path / "labels.json"
        path.write_text(json.dumps([{"prompt": "set/1", "exploits": True, **label}]))
        labels = read_labels(path)
        labels.refuse_others(["set/1"], 1, ["organism", "clean"])
        return labels.spans("organism", runs)

    assert found() == [[(0, 15)]]
    assert found(arm="clean") == [None]
    assert found(exploits=0) == [[]]
    assert found(spans=[[6, 8]], response="Since it rains.") == [[(6, 8)]]
    marked = with_spans(runs, tiny_llama.tokenizer, found(spans=[[6, 8]]))
    assert marked.exploit.values.tolist() == [1]
    assert 0 < int(marked.exploit_span.sum()) < int((runs.token >= 0).sum())
    for label, words in (
        ({"response": "Since it snows."}, "Label this run's"),
        ({"spans": [[6, 99]]}, "Mend the span"),
        ({"sample": 1}, "1 prompts with 1 samples each"),
        ({"prompt": "set/2"}, "sample 0 of 'set/2'"),
    ):
        with pytest.raises(ValueError, match=words):
            found(**label)
