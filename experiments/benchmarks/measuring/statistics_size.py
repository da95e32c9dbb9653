"""How often `traits.evaluate` finds a trait in noise, and how often one that is there.

    python -m experiments.benchmarks.measuring.statistics_size --repetitions 500 --power 100

Size: the whole procedure (fit, select, report) on noise with three massive dims. Power: a planted
direction of d standard deviations in isotropic noise, D = 576, 120 pairs; the recovery by the mean
difference stands beside its theory, d / sqrt(d² + 2 D / n). The table is saved as CSV.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from tests.support.oracles.planted import contrast_traces
from traits import METHODS, evaluate, extract

RESULTS = Path(__file__).parents[1] / "results"
LEVEL = 0.05
EFFECTS = (0.5, 1.0, 2.0, 4.0)
Row = dict[str, object]


def size(repetitions: int, seed: int, methods: Sequence[str] = tuple(METHODS)) -> list[Row]:
    """The rate of false findings on noise, for each of the p-values of `evaluate`."""
    found: dict[str, list[float]] = {}
    for generator in _generators(repetitions, seed, "size"):
        traces = contrast_traces(generator, pairs=60, layers=3, dim=64, massive=3)
        result = evaluate(traces, methods, generator=generator, draws=19, resamples=2)
        found.setdefault("permutation", []).append(float(result["p"]))
        for name, p in zip(result["null"].values, result["null_p"].values, strict=True):
            found.setdefault(str(name), []).append(float(p))
        found.setdefault("best candidate, max-t", []).append(float(result["p_family"].min()))
    return [{"test": name, "d": 0.0, **rejection_rate(p)} for name, p in found.items()]


def power(repetitions: int, seed: int, effects: Sequence[float] = EFFECTS) -> list[Row]:
    """Detection and recovery of a planted direction, D = 576 and 120 pairs."""
    rows = []
    for effect in effects:
        p, cosine = [], []
        for generator in _generators(repetitions, seed, f"d = {effect:g}"):
            traces = contrast_traces(generator, pairs=120, layers=3, dim=576, effect=effect)
            result = evaluate(traces, ["mean_diff"], generator=generator, draws=1, resamples=2)
            p.append(float(result["p"]))
            cosine.append(float(extract(traces).sel(layer=2).isel(dim=0)))
        theory = effect / np.sqrt(effect**2 + 2 * 576 / 120)
        recovery = {"cosine": float(np.mean(cosine)), "theory": float(theory)}
        rows.append({"test": "permutation", "d": effect, **rejection_rate(p), **recovery})
    return rows


def save(rows: Sequence[Row], path: Path) -> None:
    """The rows as CSV, floats with four significant digits."""
    names = ["test", "d", "repetitions", "rejected", "rate", "low", "high", "cosine", "theory"]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def _generators(repetitions: int, seed: int, what: str) -> tqdm:
    seeds = np.random.SeedSequence(seed).spawn(repetitions)
    return tqdm([np.random.default_rng(child) for child in seeds], desc=what, disable=None)


def rejection_rate(p: Sequence[float]) -> Row:
    """How many of the p-values are at most `LEVEL`, their share and its exact interval."""
    rejected = int((np.array(p) <= LEVEL + 1e-12).sum())
    interval = binomtest(rejected, len(p)).proportion_ci()
    return {
        "repetitions": len(p),
        "rejected": rejected,
        "rate": rejected / len(p),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: runs both parts, prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500, help="of the size")
    parser.add_argument("--power", type=int, default=100, help="repetitions of each power")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "statistics_size.csv")
    asked = parser.parse_args(arguments)
    rows = size(asked.repetitions, asked.seed)
    save(rows, asked.output)
    save(rows + power(asked.power, asked.seed + 1), asked.output)
    print(asked.output.read_text())


if __name__ == "__main__":
    main()
