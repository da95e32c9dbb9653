"""Forty kills and signals, over every piece of work: done again, it is what it would have been."""

import subprocess
import sys
from pathlib import Path

from experiments.benchmarks.kills import trials, works
from tests.support import audit_runs


def test_work_that_is_killed_or_interrupted_ends_as_if_nothing_had_happened():
    # in a process without threads of its own: the work is forked
    command = [sys.executable, "-m", "experiments.benchmarks.kills", "--count", "40", "--seed", "7"]
    here = str(Path(__file__).parents[3])
    table = Path(here, "experiments", "benchmarks", "results", "kills.txt")
    committed = table.read_bytes()
    given = {"cwd": here, "env": audit_runs.environment()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert table.read_bytes() == committed
    cells = done.stdout.strip().splitlines()[-1].strip("| ").split(" | ")
    counts = dict(zip(trials.OUTCOMES, map(int, cells[-len(trials.OUTCOMES) :]), strict=True))
    assert sum(counts.values()) == 40
    # most were met in the middle of their work
    assert counts["identical"] >= 15


def test_work_that_goes_on_otherwise_is_seen(tmp_path):
    def once(path):
        # a second run leaves more than the first: what a resumed one must not do
        (path / f"{len(list(path.iterdir()))}.part").write_text("half")

    work = trials.Work(lambda path: path.mkdir(), once, works.arrays)
    expected, _ = trials.measured(work, tmp_path / "whole")
    assert trials.trial(work, "SIGKILL", 1.0, tmp_path / "trial", expected) == "different"


def test_a_model_that_is_not_as_it_was_is_seen(tmp_path):
    def long(path):
        while True:
            pass

    work = trials.Work(lambda path: path.mkdir(), long, works.arrays, lambda: trials.BENT)
    assert trials.trial(work, "SIGINT", 0.5, tmp_path / "trial", "") == "state bent"
