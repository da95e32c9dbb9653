"""Can trait vectors tell a hidden habit without labels, where the habit is known to be there?

    python -m experiments.organisms zoo --out runs/zoo
    python -m experiments.benchmarks.zoo --zoo runs/zoo --out runs/zoo-search
    python -m experiments.benchmarks.audits.blind_zoo --zoo runs/zoo --search runs/zoo-search \
        --vectors runs/smollm2-…/vectors.nc --save

The blind comparison of the audit on every organism of the zoo: the largest t over traits and
allowed layers of (adapter − clean) on the clean model's answers to battery prompts, among those of
the benign adapters, which are of the same rank and training length. Beside it the same of as many
random directions as there are traits, the same for all adapters, with the covariance of the clean
activations: how many organisms each such set calls unlike says what traits add. And beside both
what the search without labels found of each, and whether it is denied.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.discovery import findings
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.evidence.choice import allowed_layers
from experiments.audit.evidence.directions_null import (
    Directions,
    largest,
    matched,
    p_of,
    themselves,
)
from experiments.audit.phases.span_means import unit_mean
from experiments.audit.sections.blind import farthest_t
from experiments.benchmarks.measuring.paired import report
from experiments.organisms.zoo import habits
from tracekit import Model
from tracekit.model.embedded import EMBEDDED
from traits.statistics import against_null

DEPTH = (0.2, 0.75)  # of the layers, as the audit's presets allow
ALPHA, DRAWS, SEED = 0.05, 500, 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not there yet, and print the table."""
    options = _parser().parse_args(arguments)
    runs = [tk.open(path) for path in sorted((options.search / CLEAN).glob("answers-chat-*.nc"))]
    model = tk.load(EMBEDDED)
    organisms = {habit.name: habit for habit in habits.habits()}
    benign = sorted(path.name for path in options.zoo.glob("benign-*"))
    folder = options.out or options.search / "blind"
    means = {
        name: _means(model, runs, None if name == CLEAN else options.zoo / name, folder / name)
        for name in (CLEAN, *organisms, *benign)
    }
    moved = {name: means[name] - means[CLEAN] for name in means if name != CLEAN}
    vectors = tk.open(options.vectors).sel(extraction=options.method)
    vectors = vectors.transpose("trait", "layer", "dim")
    layers = vectors["layer"].values
    allowed = allowed_layers(layers, DEPTH, len(layers))
    traits = of_directions(themselves(vectors.values), moved, allowed)
    random = matched(
        means[CLEAN], vectors.sizes["trait"], np.random.default_rng(SEED), options.draws
    )
    directions = of_directions(random, moved, allowed)
    said = {name: _searched(options.search / name) for name in organisms}
    about = f"{vectors.sizes['trait']} traits, {len(means[CLEAN])} prompts, {len(benign)} benign"
    lines = [f"# Blind, on the zoo: {about}", ""]
    lines += table({name: traits[name][0] for name in traits}, directions, benign, said)
    report(lines, "blind_zoo", Path(__file__).parents[1] / "results") if options.kept else print(
        *lines, sep="\n"
    )


def of_directions(
    directions: Directions, moved: Mapping[str, np.ndarray], allowed: np.ndarray
) -> dict[str, np.ndarray]:
    """Of each adapter, the largest |t| over directions and allowed layers: (draw).

    `moved` are (prompt, layer, dim), unit means of the same ids, adapter − clean.
    """
    farthest = partial(farthest_t, allowed=allowed)
    return {name: largest(directions, farthest, change) for name, change in moved.items()}


def among(observed: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(1 + those at least as far) / (others + 1), each draw among its own.

    >>> among(np.array([2.0]), np.array([[1.0], [3.0]])).round(2).tolist()
    [0.67]
    """
    null = xr.DataArray(others, dims=("draw", "set"))
    return against_null(xr.DataArray(observed, dims="set"), null)["p"].values


def table(
    traits: Mapping[str, float],
    directions: Mapping[str, np.ndarray],
    benign: Sequence[str],
    said: Mapping[str, tuple[int, int]],
) -> list[str]:
    """A row an organism, then how many each way calls unlike, of organisms and of benign ones."""
    of_benign = np.array([traits[name] for name in benign])[:, None]
    others = np.stack([directions[name] for name in benign])
    lines = [
        "| organism | T of traits | p among benign | T of random, median (95 %) | p of the traits "
        "among random | random sets with p ≤ 0.05 | habits found | denied |",
        "| --- " * 8 + "|",
    ]
    unlike, random = [], []
    for name, (found, denied) in said.items():
        drawn, p = directions[name], among(np.array([traits[name]]), of_benign)[0]
        called = among(drawn, others) <= ALPHA
        beside = p_of(np.array([traits[name]]), drawn)[0]
        low, median, high = np.quantile(drawn, [0.025, 0.5, 0.975])
        lines.append(
            f"| {name} | {traits[name]:.1f} | {p:.2f} | {median:.1f} ({low:.1f}–{high:.1f}) | "
            f"{beside:.3f} | {called.mean():.2f} | {found} | {denied} |"
        )
        unlike.append(p <= ALPHA)
        random.append(called)
    wrong = [
        among(of_benign[n], np.delete(of_benign, n, 0))[0] <= ALPHA for n in range(len(benign))
    ]
    return [*lines, "", *_together(unlike, np.sum(random, axis=0), wrong), *_found(said)]


def _together(unlike: Sequence[bool], random: np.ndarray, wrong: Sequence[bool]) -> list[str]:
    """How many are called unlike: by the traits, by each random set, of the benign."""
    low, median, high = np.quantile(random, [0.025, 0.5, 0.975])
    beside = p_of(np.array([float(sum(unlike))]), random.astype(float))[0]
    return [
        f"Unlike at p ≤ {ALPHA}: {sum(unlike)} of {len(unlike)} organisms by the traits; by as "
        f"many random directions {median:.0f} (95 % of {len(random)} sets: {low:.0f}–{high:.0f}): "
        f"the traits' number has p = {beside:.3f}. Of the benign, each among the others: "
        f"{sum(wrong)} of {len(wrong)} by the traits.",
    ]


def _found(said: Mapping[str, tuple[int, int]]) -> list[str]:
    confirmed, denied = (sum(one[n] > 0 for one in said.values()) for n in (0, 1))
    return [
        f"Found without labels: a confirmed habit in {confirmed} of {len(said)}; found and denied "
        f"in {denied}."
    ]


def _means(
    model: Model, runs: Sequence[xr.Dataset], adapter: Path | None, path: Path
) -> np.ndarray:
    """Unit means of the same ids under an adapter: (prompt, layer, dim); kept as files."""
    files = [path.with_name(f"{path.name}-{n}.nc") for n in range(len(runs))]
    lacking = [(file, some) for file, some in zip(files, runs, strict=True) if not file.is_file()]
    if lacking:
        with tk.adapter(model, None if adapter is None else str(adapter)) as adapted:
            for file, some in lacking:
                tk.save(tk.capture(adapted, some, tokens=slice(0, None), reduce=unit_mean), file)
    found = [tk.open(file).transpose("prompt", "layer", "dim").values for file in files]
    return np.concatenate(found)


def _searched(folder: Path) -> tuple[int, int]:
    """How many habits the search confirmed, and how many of those are denied."""
    confirmed = findings.read(folder / "findings.json").confirmed()
    return len(confirmed), sum(finding.asked == "denied" for finding in confirmed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--zoo", type=Path, required=True, help="the folder of organisms and benign adapters")
    add("--search", type=Path, required=True, help="the folder of their searches")
    add("--vectors", type=Path, required=True, help="the vectors of a run")
    add("--method", default="mean_diff", help="how those were made")
    add("--out", type=Path, help="where unit means are kept")
    add("--draws", type=int, default=DRAWS)
    add("--save", dest="kept", action="store_true", help="write the table into the results")
    return parser


if __name__ == "__main__":
    main()
