"""The audit with its weights split over two processes gives what one process gives."""

import json
from pathlib import Path

import audit_runs
import pytest

from experiments.rm_sycophancy.__main__ import main


@pytest.fixture(scope="module")
def given(tiny_folder: Path, tiny_lora: Path) -> list[str]:
    return audit_runs.flags(tiny_folder, tiny_lora)


@pytest.fixture(scope="module")
def alone(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["run", *given, "--out", str(folder)]) == 0
    return folder


def test_split_weights_give_what_one_process_gives(
    alone: Path, given: list[str], tmp_path: Path
) -> None:
    way = "--tensor-parallel"
    folder = tmp_path / "run"
    with audit_runs.started(["run", *given, way, "--out", str(folder)]) as process:
        assert process.wait(300) == 0
    here, there = audit_runs.arrays(alone), audit_runs.arrays(folder)
    assert audit_runs.furthest(here, there) <= 1e-5
    assert (folder / "settings.json").read_text() == (alone / "settings.json").read_text()
    assert (folder / "table.txt").is_file()
    # the twin: the other weights' traces on the same text are not within the bound
    here["traces/organism.organism"] = here["traces/clean.organism"]
    assert audit_runs.furthest(here, there) > 1e-3
    said = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    events = [line["event"] for line in said if line["phase"] == "capture"]
    assert (events[0], events[-1], events.count("finished")) == ("begun", "finished", 1)


def test_torchrun_and_its_flag_go_together(
    given: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["run", *given, "--tensor-parallel", *out]) == 2
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", *given, *out]) == 2
    assert "--tensor-parallel or --data-parallel" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
