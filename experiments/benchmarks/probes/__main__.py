"""Which probe, pooled how, tells labelled texts: each chosen on its own part, the report apart.

    python -m experiments.benchmarks.probes [--data cities.csv:city larger_than.csv] [--save probes]

On the shipped organism's labelled responses (fitted and chosen on five biases, reported on the
other five, intervals for other kinds), read under its adapter; and on each CSV of statements
(columns statement and label; after a colon the column whose values are kept together), parted at
random. Beside each cell the gain over TF-IDF fitted on the same part; what a method's own part
chooses stands among fits of shuffled labels and of covariance-matched directions that chose
likewise. With two sources or more a matrix says how far a probe of each carries to the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tracekit as tk
import traits
from experiments.benchmarks.measuring.paired import report
from experiments.benchmarks.probes.table import METHODS, POOLINGS, captured, cells, interval, lines
from experiments.benchmarks.probes.texts import Texts, responses, statements
from tracekit.model.embedded import EMBEDDED

LAYERS = (8, 12, 16, 20, 24)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sources one after another, and print their tables."""
    options = parser().parse_args(arguments)
    model = tk.load(options.model, dtype="float32")
    sources = [] if options.without_organism else [responses(model, options.limit)]
    for given in options.data:
        path, _, groups = given.partition(":")
        sources.append(statements(model, Path(path), groups or None, options.limit))
    traces = {one.name: captured(model, one, options.layers, options.out) for one in sources}
    told = [
        f"{options.model}, layers {', '.join(map(str, options.layers))}; "
        f"{options.draws} draws a null, {options.resamples} resamples.",
        "",
    ]
    for one in sources:
        print(one.said, flush=True)
        cut = options.methods, options.poolings, options.draws, options.resamples
        made = cells(one, traces[one.name], *cut)
        told += lines(one, made, options.draws)
    if len(sources) > 1:
        told += carried(sources, traces, options.resamples)
    if options.kept:
        report(told, options.kept, Path(__file__).parent.parent / "results")
    else:
        print(*told, sep="\n")


def carried(sources: Sequence[Texts], traces: dict, resamples: int) -> list[str]:
    """A probe (logistic, of the mean) of each source on the report of every other."""
    sets = {one.name: (traces[one.name], traces[one.name]["label"]) for one in sources}
    parts = {one.name: one.part for one in sources}
    found = traits.transfer_matrix(
        sets, parts=parts, resamples=resamples, generator=np.random.default_rng(0)
    )
    names = found["scored_on"].values.astype(str).tolist()
    head = [f"| AUROC, fitted on | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    body = []
    for name in names:
        row = found.sel(fitted_on=name)
        ends = [[row[end].sel(scored_on=other).item() for end in ENDS] for other in names]
        body.append(f"| {name} | {' | '.join(interval(*three) for three in ends)} |")
    return ["### From one set to another (logistic, mean)", "", *head, *body, ""]


ENDS = ("auroc", "low", "high")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--model", default=EMBEDDED)
    made.add_argument("--data", nargs="*", default=[], help="CSVs of statements, FILE[:COLUMN]")
    made.add_argument("--limit", type=int, default=300, help="texts of each source")
    made.add_argument("--layers", nargs="*", type=int, default=LAYERS)
    made.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    made.add_argument("--poolings", nargs="*", default=POOLINGS)
    made.add_argument("--draws", type=int, default=39)
    made.add_argument("--resamples", type=int, default=400)
    made.add_argument("--without-organism", action="store_true")
    made.add_argument("--out", type=Path, help="a folder that keeps the captures")
    made.add_argument(
        "--save", dest="kept", help="a name in experiments/benchmarks/results, such as probes"
    )
    return made


if __name__ == "__main__":
    main()
