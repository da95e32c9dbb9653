"""How often 95 % intervals of a mean AUROC within bias hold it, with and without spread of biases.

    python -m experiments.benchmarks.audits.audit_coverage --runs 2000

Each run draws kinds of prompt whose AUROCs are uniform about 0.6 with the given sd, and for each
25 prompts with outcomes of their own; the intervals should hold 0.6, the mean of all kinds. "other
kinds" is `traits.statistics.over_kinds` (t below ten kinds, else the two-stage bootstrap), "these
kinds" the bootstrap over prompts within bias, and within bias and outcome, as rows have it beside.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.stats import binomtest
from tqdm import tqdm

from traits.statistics import stages
from traits.statistics.kinds import FEW

RESULTS = Path(__file__).parents[1] / "results"
MIDDLE, PROMPTS, LEVEL = 0.6, 25, 0.95
KINDS, SPREADS = (3, 5, 8, 12), (0.0, 0.1, 0.15)
OTHER, THESE, OUTCOMES = "other kinds", "these kinds", "these kinds, their outcomes"
Row = dict[str, object]


@dataclass(frozen=True)
class Kind:
    """The prompts of one kind: their outcomes, and which exploiting one is above which other."""

    label: np.ndarray
    above: Float[np.ndarray, "hit rest"]


def sample(generator: np.random.Generator, kinds: int, spread: float) -> list[Kind]:
    """The prompts of kinds whose AUROCs have the sd `spread`.

    >>> [kind.label.shape for kind in sample(np.random.default_rng(0), 2, 0.1)]
    [(25,), (25,)]
    """
    made = []
    for area in MIDDLE + spread * np.sqrt(12) * (generator.random(kinds) - 0.5):
        label = generator.permutation(np.arange(PROMPTS) < generator.integers(8, 18))
        score = generator.normal(size=PROMPTS) + np.sqrt(2) * stats.norm.ppf(area) * label
        made.append(Kind(label, (score[label][:, None] > score[~label]).astype(float)))
    return made


def redrawn(
    kinds: Sequence[Kind], generator: np.random.Generator, draws: int, outcomes: bool
) -> Float[np.ndarray, "kind draw"]:
    """Draws of each kind's AUROC from its own prompts, its `outcomes` kept or not.

    NaN for a draw with one outcome.
    """
    return np.stack([_areas(kind, generator, draws, outcomes) for kind in kinds])


def covered(kinds: Sequence[Kind], generator: np.random.Generator, draws: int) -> dict[str, bool]:
    """Which of the intervals hold 0.6."""
    areas = np.array([kind.above.mean() for kind in kinds])
    free = redrawn(kinds, generator, draws, outcomes=False)
    kept = redrawn(kinds, generator, draws, outcomes=True)
    few, tails = len(kinds) < FEW, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    bounds = {
        OTHER: stages(areas, None if few else free, generator, 2 * draws, LEVEL),
        THESE: np.quantile(np.nanmean(free, axis=0), tails),
        OUTCOMES: np.quantile(kept.mean(axis=0), tails),
    }
    return {name: bool(low <= MIDDLE <= high) for name, (low, high) in bounds.items()}


def coverage(kinds: int, spread: float, runs: int, draws: int = 400, seed: int = 0) -> list[Row]:
    """A row an interval: how often it holds the mean of all kinds."""
    generator = np.random.default_rng([seed, kinds, int(100 * spread)])
    hits: dict[str, int] = dict.fromkeys((OTHER, THESE, OUTCOMES), 0)
    for _ in tqdm(range(runs), desc=f"{kinds} kinds, sd {spread:g}", disable=None):
        for name, hit in covered(sample(generator, kinds, spread), generator, draws).items():
            hits[name] += hit
    rows: list[Row] = []
    for name, count in hits.items():
        exact = binomtest(count, runs).proportion_ci()
        given: Row = {"kinds": kinds, "spread": spread, "interval": name, "runs": runs}
        rows.append({**given, "rate": count / runs, "low": exact.low, "high": exact.high})
    return rows


def save(rows: Iterable[Row], path: Path) -> None:
    """The rows as CSV, floats with four significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        names = ["kinds", "spread", "interval", "runs", "rate", "low", "high"]
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def _areas(
    kind: Kind, generator: np.random.Generator, draws: int, outcomes: bool
) -> Float[np.ndarray, "draw"]:
    count = len(kind.label)
    counts = np.zeros((draws, count))
    parts = [kind.label, ~kind.label] if outcomes else [np.ones(count, bool)]
    for part in parts:
        size = int(part.sum())
        counts[:, part] = generator.multinomial(size, np.full(size, 1 / size), size=draws)
    one, other = counts[:, kind.label], counts[:, ~kind.label]
    pairs = one.sum(axis=1) * other.sum(axis=1)
    above = ((one @ kind.above) * other).sum(axis=1)
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: prints and saves the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="simulated samples of each setting")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap draws of each interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "audit_coverage.csv")
    asked = parser.parse_args(arguments)
    rows = []
    for kinds in KINDS:
        for spread in SPREADS:
            rows += coverage(kinds, spread, asked.runs, asked.draws, asked.seed)
            save(rows, asked.output)
    print(asked.output.read_text())


if __name__ == "__main__":
    main()
