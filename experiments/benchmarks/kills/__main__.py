"""Work that is killed or interrupted at a random moment, and goes on: nothing lost, nothing bent.

    python -m experiments.benchmarks.kills [--count 1000] [--seed 0] [--work capture,save] [--save]

A forked process does a piece of work on a tiny random model (generate, capture to a folder, save
over an older file, attach an adapter, search its habits, each phase of the audit) and meets
SIGKILL, SIGINT, SIGTERM or SIGHUP at a random moment. Another then does the same work in the same
place; what is there afterwards has to be what an uninterrupted run leaves, bit for bit. A process
that meets SIGINT lives on and has to find its model as it was (the same weights, the same
log-probabilities without an adapter), or a model that says itself that it is not. The table goes
to `results/kills.txt`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.kills.trials import OUTCOMES, WRONG, measured, trial
from experiments.benchmarks.kills.works import WORKS, works

SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")
# the short ones more often
WEIGHTS = {"capture": 8, "generate": 4, "save": 8, "adapter": 4, "discovery": 2}
RESULTS = Path(__file__).parents[1] / "results"


def table(counts: Mapping[tuple[str, str], Counter[str]]) -> list[str]:
    """The counts as lines: a row for each work and signal, and their sum."""
    lines = [f"| work | signal | {' | '.join(OUTCOMES)} |", "|" + " --- |" * (len(OUTCOMES) + 2)]
    whole = sum(counts.values(), Counter())
    for (name, sent), found in [*sorted(counts.items()), (("all", ""), whole)]:
        cells = " | ".join(str(found[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {name} | {sent.removeprefix('SIG')} | {cells} |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the trials asked for; 1 if any result was different, failed or bent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help="names between commas (default: all)")
    parser.add_argument("--save", dest="kept", action="store_true", help="write results/kills.txt")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a forked process has no other threads
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        names = options.work.split(",") if options.work else list(WORKS)
        every = works(place, names)
        counts: dict[tuple[str, str], Counter[str]] = {}
        uninterrupted = {n: measured(every[n], place / f"whole {n}") for n in names}
        weights = np.array([WEIGHTS.get(name, 1) for name in names])
        for number in range(options.count):
            name = str(rng.choice(names, p=weights / weights.sum()))
            sent = SIGNALS[number % len(SIGNALS)]
            expected, seconds = uninterrupted[name]
            path = place / f"trial{number}"
            moment = float(rng.uniform(0, seconds))
            came = trial(every[name], sent, moment, path, expected)
            counts.setdefault((name, sent), Counter())[came] += 1
            if came in WRONG:
                print(f"{name}, {sent} after {moment:.2f} s: {came}", flush=True)
            shutil.rmtree(path, ignore_errors=True)
            if number % 50 == 49 and options.kept:
                _save(counts, number + 1, options)
    print("\n".join(table(counts)))
    if options.kept:
        _save(counts, options.count, options)
    whole = sum(counts.values(), Counter())
    return int(any(whole[outcome] for outcome in WRONG))


def _save(
    counts: Mapping[tuple[str, str], Counter[str]], done: int, options: argparse.Namespace
) -> None:
    """The table so far: a run of an hour that is ended early has said what it saw."""
    about = f"python -m experiments.benchmarks.kills --count {options.count} --seed {options.seed}"
    lines = [about, "", f"{done} of {options.count} done", "", *table(counts), ""]
    (RESULTS / "kills.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
