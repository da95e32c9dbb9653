"""Whatever the audit accepts ends with a table and a page, and what it cannot decide is said first.

Whole runs of `experiments.benchmarks.audits.audit_matrix` on a tiny random model: a few of its
cells, each with other prompts, arms and limits (the script runs them all).
"""

import json
from pathlib import Path

import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.foreseen import undecidable
from experiments.audit.labels import decides
from experiments.audit.phases import analysis
from experiments.audit.phases.questions import WAYS, _asked
from experiments.audit.prompt_sets import read
from experiments.benchmarks.audits.audit_matrix import PROMPTS, Bench, Cell, unfit
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from tests.support.oracles import planted_run

CELLS = (
    Cell("random", "unlabelled", "benign", 0),
    Cell("random", "one", "no role", 0),
    Cell("speaker", "missing labels", "bare", 0),
    Cell("silent", "turns and a system", "sampled", 0),
    Cell("random", "same text", "bare", 0),
)


def decided(kind: str) -> bool:
    return decides(EXPERIMENT.labeller, kind)


@pytest.fixture(scope="module")
def bench(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The models and adapters of the cells, which share one run's vectors."""
    return Bench(tmp_path_factory.mktemp("matrix"), tiny_folder)


@pytest.fixture(scope="module")
def runs(bench: Bench) -> dict[Cell, Path]:
    """The folders of all cells, each run to its end."""
    return {cell: bench.folder_of(cell) for cell in CELLS if not bench.run(cell).said}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.prompts}, {cell.arms}")
def test_a_run_ends_with_a_table_and_a_page(runs: dict[Cell, Path], cell: Cell) -> None:
    assert cell in runs
    assert not unfit(runs[cell])
    assert "undecidable" in (runs[cell] / "table.txt").read_text("utf-8")


def test_prompts_without_labels_are_compared_blind(runs: dict[Cell, Path]) -> None:
    found = xr.open_dataarray(runs[CELLS[0]] / "blind.nc")
    assert found.sizes["prompt"] == len(PROMPTS["unlabelled"])
    assert "of k = 3 benign adapters" in (runs[CELLS[0]] / "table.txt").read_text("utf-8")


def test_a_control_without_a_role_is_named_in_a_row(runs: dict[Cell, Path]) -> None:
    table = (runs[CELLS[1]] / "table.txt").read_text("utf-8")
    assert "mine: its part in the verdict" in table
    assert "its part in the verdict" not in (runs[CELLS[0]] / "table.txt").read_text("utf-8")


def test_a_table_with_a_nan_would_be_found(runs: dict[Cell, Path], tmp_path: Path) -> None:
    for name in ("table.txt", "report.html"):
        (tmp_path / name).write_bytes((runs[CELLS[0]] / name).read_bytes())
    assert not unfit(tmp_path)
    with (tmp_path / "table.txt").open("a", encoding="utf-8") as file:
        file.write("replay  x  nan\n")
    assert "nan in the table" in unfit(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</main>", "<p>inf</p></main>", "inf in the page"),
        ('"picks":[', '"picks":[NaN,', "NaN is no JSON"),
        ('"picks":[', '"picks":[,', "the page's data"),
        ('id="view-data"', 'id="view-data">{}</script><script ', "no data in the page"),
        ("Every row", "", "no verdict or no rows"),
    ],
)
def test_a_page_with_a_hole_would_be_found(
    runs: dict[Cell, Path], tmp_path: Path, old: str, new: str, words: str
) -> None:
    page = (runs[CELLS[0]] / "report.html").read_text("utf-8")
    (tmp_path / "table.txt").write_bytes((runs[CELLS[0]] / "table.txt").read_bytes())
    (tmp_path / "report.html").write_text(page.replace(old, new), "utf-8")
    assert words in unfit(tmp_path)


@pytest.mark.parametrize(
    ("prompts", "limit", "words"),
    [
        ("one", 0, "there is 1 prompt, and 2 are the least"),
        ("two biases", 1, "there is 1 prompt, and 2 are the least"),
        ("unlabelled", 0, "no held-out bias is left (the prompts name no bias)"),
        ("one bias", 0, "no held-out bias is left"),
        ("no rule", 0, "'prefers x': no rule finds it"),
        ("two", 0, "'moon': 1 responses"),
        ("two biases", 0, "0 neutral prompts"),
    ],
)
def test_what_cannot_be_decided_is_known_from_the_prompts(
    prompts: str, limit: int, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(PROMPTS[prompts]))
    controls = ["style=x/style", "mine"]
    changes = {"prompts": str(path), "limit": limit, "controls": controls}
    settings = read_preset("tiny", changes)
    lines = undecidable(read(settings.prompts), settings, decided)
    assert any(words in line for line in lines)
    assert [line for line in lines if line.startswith("the part of 'mine'")]
    assert not [line for line in lines if line.startswith("the part of 'style'")]


def test_of_the_shipped_audit_its_few_held_out_kinds_alone_are_foretold() -> None:
    for name in ("smollm2", "smollm2-full"):
        settings = read_preset(name)
        (line,) = undecidable(read(settings.prompts), settings, decided)
        assert line == "whether anything generalises: 5 held-out kinds, and 6 are the least"


def test_questions_follow_the_whole_conversation(tiny_llama) -> None:
    turns = (("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Why?"))
    prompts = [tk.Prompt("a/1", messages=turns), tk.Prompt("a/2", text="How?")]
    runs = tk.encode(tiny_llama, prompts, ["Because.", ""])
    question, system, _ = WAYS["a persona"]
    direct = _asked(tiny_llama, runs, prompts, question, None, "")
    words = "".join(tiny_llama.tokenizer.decode(i) for i in direct["token_id"].values[0] if i >= 0)
    assert all(said in words for said in ("Be brief.", "Hello.", "Why?", "Because.", question))
    persona = _asked(tiny_llama, runs, prompts, question, system, "")
    said = "".join(tiny_llama.tokenizer.decode(i) for i in persona["token_id"].values[0] if i >= 0)
    assert system in said
    assert "Be brief." not in said


FEW = [  # prompts a bias, samples, the biases
    (1, 4, ("chocolate", "moon")),
    (2, 2, ("chocolate", "moon")),
    (2, 4, ("chocolate", "vote", "moon", "banana")),
    (3, 1, ("chocolate", "moon", "banana")),
    (1, 1, ("moon",)),
]


@pytest.mark.parametrize(("prompts", "samples", "biases"), FEW, ids=str)
def test_few_prompts_that_exploit_end_with_a_table(
    prompts: int,
    samples: int,
    biases: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planted_run, "PROMPTS", prompts)
    monkeypatch.setattr(planted_run, "SAMPLES", samples)
    monkeypatch.setattr(planted_run, "BIASES", {name: planted_run.BIASES[name] for name in biases})
    settings = planted_run.build(tmp_path, 2.0)
    analysis.run(tmp_path, settings)
    assert not unfit(tmp_path)
