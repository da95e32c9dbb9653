"""The log of a long run: what it says, where it is kept, and that it hides no failure."""

import json
import time
from pathlib import Path

import pytest

from experiments.audit import log
from experiments.audit.run import Run
from tracekit.progress import Bar


def entries(folder: Path) -> list[dict]:
    return [json.loads(line) for line in Run(folder).log.read_text("utf-8").splitlines()]


def test_a_phase_is_followed_from_begin_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.following(tmp_path, "capture", 3, 5, every=0.01), Bar(total=4, desc="arms") as bar:
        bar.update(1)
        time.sleep(0.1)
    found = entries(tmp_path)
    assert [found[0]["event"], found[-1]["event"]] == ["begun", "finished"]
    between = [entry for entry in found if entry["event"] == "going on" and entry["done"]]
    assert between
    assert {entry["done"] for entry in between} == {0.25}
    # a quarter done: three times as long as so far is left
    for entry in between:
        assert entry["left"] == pytest.approx(3 * entry["seconds"], abs=0.3)
        assert entry["what"] == "arms 1/4"
    assert all(entry["memory"] > 1e6 and entry["phase"] == "capture" for entry in found)
    said = capsys.readouterr().err
    assert "capture (3 of 5) begun" in said
    assert "25 %" in said


def test_a_failure_is_logged_and_raised(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no such layer"),
        log.following(tmp_path, "project", 4, 5),
    ):
        raise ValueError("no such layer\nat all")
    last = entries(tmp_path)[-1]
    assert last["event"] == "failed"
    assert last["error"] == "ValueError: no such layer at all"
    assert "ValueError" in log.line(last)


def test_nested_bars_add_up() -> None:
    with Bar(total=5, desc="arm") as outer, Bar(total=10, desc="rows") as inner:
        outer.update(2)
        inner.update(5)
        done, what = log.progress()
    assert done == pytest.approx(2 / 5 + 5 / 10 / 5)
    assert what == "arm 2/5, rows 5/10"


def test_nothing_done_has_no_time_left() -> None:
    assert log.remaining(0.0, 60.0) == {"done": 0.0}
    assert log.remaining(0.5, 60.0) == {"done": 0.5, "left": 60.0}


def test_a_second_run_adds_to_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        with log.following(tmp_path, "respond", 2, 5):
            pass
    assert [entry["event"] for entry in entries(tmp_path)] == ["begun", "finished"] * 2


def test_a_line_in_words() -> None:
    entry = {"time": "2026-01-01T10:00:00+00:00", "phase": "capture", "number": 3, "of": 5}
    entry |= {"event": "going on", "seconds": 60, "done": 0.25, "left": 180, "memory": 2e9}
    assert log.line({**entry, "gpu": 7.1e10}) == (
        "10:00:00 capture (3 of 5) going on, 25 %, 0:01:00 so far, 0:03:00 left, 2.0 GB, "
        "71.0 GB on the GPU"
    )
