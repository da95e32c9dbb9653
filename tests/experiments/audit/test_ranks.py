"""The audit in two processes gives what one gives; a rank that dies ends it, its shards stay."""

import json
import time
from pathlib import Path

import psutil
import pytest

import tracekit as tk
from experiments.rm_sycophancy.__main__ import main
from tests.support import audit_runs
from tracekit.storage.capture_folder import Folder


@pytest.fixture(scope="module")
def given(tiny_folder: Path, tiny_lora: Path) -> list[str]:
    return audit_runs.flags(tiny_folder, tiny_lora)


@pytest.fixture(scope="module")
def alone(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["run", *given, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("way", ["--tensor-parallel", "--data-parallel"])
def test_two_processes_give_what_one_gives(
    way: str, alone: Path, given: list[str], tmp_path: Path
) -> None:
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
    if way == "--data-parallel":
        _each_wrote_its_part(folder / "traces" / "organism.organism")


def _each_wrote_its_part(capture: Path) -> None:
    parts = [
        {json.loads(line)["file"] for line in (capture / name).read_text().splitlines()}
        for name in ("shards.jsonl", "shards.1.jsonl")
    ]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {path.name for path in capture.glob("*.nc")}


def test_a_rank_that_dies_ends_the_run_and_the_shards_stay(
    alone: Path, given: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = folder / "traces" / "clean.organism"
    with audit_runs.started(["run", *given, "--data-parallel", "--out", str(folder)]) as process:
        while not list(first.glob("[0-9]*.nc")):
            assert process.poll() is None
            time.sleep(0.01)
        second = _rank(process.pid, "1")
        second.kill()
        # the first waits for the second in vain unless it is ended
        assert process.wait(100) != 0
    assert not (folder / "table.txt").exists()
    recorded = [first / name for name in Folder(first).records()]
    kept = {path: path.stat().st_mtime_ns for path in recorded}
    assert kept
    for path in kept:
        assert tk.open(path).sizes["layer"] == 2
    assert main(["run", *given, "--out", str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert audit_runs.furthest(audit_runs.arrays(alone), audit_runs.arrays(folder)) <= 1e-5


def _rank(parent: int, number: str) -> psutil.Process:
    children = psutil.Process(parent).children()
    return next(child for child in children if child.environ().get("RANK") == number)


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
