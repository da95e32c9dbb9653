"""Thousands of damaged inputs: each is read right, or refused in one line.

    python -m experiments.benchmarks.fuzz [--surface prompts,vectors] [--cases 10000] [--seed 0]

Every case damages one input at random (a byte, a field, a setting, a value) and hands it to the
public function that reads it. What comes back is held against what the input says, read by other
means; the state that was there before has to be there afterwards. Nothing may end in a traceback,
hang, be silently wrong or lose state; fewer than 2 % may show a library's own message. Flips in
files that carry no checksum (other tools' own) are counted apart. The table goes to
`results/fuzz.txt`; the first cases of each wrong kind are printed with their words.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.benchmarks.fuzz.outcome import KINDS, WRONG, outcome
from experiments.benchmarks.fuzz.surfaces import SURFACES

RESULTS = Path(__file__).parents[1] / "results"


def fuzz(name: str, cases: int, seed: int, place: Path) -> tuple[Counter[str], list[str]]:
    """The counts of outcomes of one surface, and the words of those that must not be."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number, case in enumerate(itertools.islice(SURFACES[name].cases(rng, place), cases)):
        kind, words = outcome(case)
        counts[kind] += 1
        if kind in WRONG or kind == "library message":
            wrong.append(f"{name} {number} ({case.what}): {kind}: {words}")
            print(ascii(wrong[-1])[1:-1], file=sys.stderr, flush=True)
    return counts, wrong


def table(counts: dict[str, Counter[str]], seconds: dict[str, float]) -> list[str]:
    """The counts as lines, a surface each, and their sum."""
    whole = sum(counts.values(), Counter())
    lines = [f"| surface | cases | {' | '.join(KINDS)} | s |", "|" + " --- |" * (len(KINDS) + 3)]
    for name, found in {**counts, "all": whole}.items():
        cells = [str(found[kind]) for kind in KINDS]
        spent = seconds.get(name, sum(seconds.values()))
        lines.append(f"| {name} | {found.total()} | {' | '.join(cells)} | {spent:.0f} |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the surfaces asked for; 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surface", default=",".join(SURFACES), help=", ".join(SURFACES))
    parser.add_argument("--cases", type=int, default=10_000, help="in all, shared by weight")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", dest="kept", action="store_true", help="write results/fuzz.txt")
    options = parser.parse_args(arguments)
    names = options.surface.split(",")
    weights = {name: SURFACES[name].weight for name in names}
    counts, seconds, wrong = {}, {}, []
    for name in names:
        begun = time.monotonic()
        share = max(round(options.cases * weights[name] / sum(weights.values())), 1)
        with tempfile.TemporaryDirectory() as folder:
            counts[name], bad = fuzz(name, share, options.seed, Path(folder))
        seconds[name] = time.monotonic() - begun
        wrong += bad
        print(f"{name}: {dict(counts[name])}", file=sys.stderr, flush=True)
    lines = table(counts, seconds)
    print("\n".join([*wrong[:200], "", *lines]))
    if options.kept:
        about = (
            f"python -m experiments.benchmarks.fuzz --cases {options.cases} --seed {options.seed}"
        )
        (RESULTS / "fuzz.txt").write_text("\n".join([about, "", *lines, ""]))
    whole = sum(counts.values(), Counter())
    messages = whole["library message"] / max(whole.total(), 1)
    return int(any(whole[kind] for kind in WRONG) or messages >= 0.02)


if __name__ == "__main__":
    sys.exit(main())
