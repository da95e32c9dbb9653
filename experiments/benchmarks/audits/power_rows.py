"""Rows of the tables of size and power: found or not, named rightly, from what strength on."""

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import binomtest

LEVEL, SIBLING = 0.05, 0.7
Row = dict[str, object]


def power_row(test: str, effect: float, count: int, repetitions: int) -> Row:
    """How often it was found, with the exact 95 % interval.

    >>> power_row("A", 0.5, 8, 10)["rate"]
    0.8
    """
    interval = binomtest(count, repetitions).proportion_ci()
    return {
        "part": "power",
        "test": test,
        "d": effect,
        "repetitions": repetitions,
        "rejected": count,
        "rate": count / repetitions,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def named(found: xr.Dataset, cosines: np.ndarray) -> bool:
    """Whether a trait that is the planted one, or nearly, is significant in `found`."""
    return bool((found["p_trait"].values[planted_traits(cosines)] <= LEVEL).any())


def planted_traits(cosines: np.ndarray) -> np.ndarray:
    """Which traits count as the planted one: the first, however well its vector was fitted, too.

    >>> planted_traits(np.array([0.5, 0.8, 0.1])).tolist()
    [True, True, False]
    """
    return (np.abs(cosines) > SIBLING) | (np.arange(len(cosines)) == 0)


def smallest(rows: Sequence[Row], test: str, share: float = 0.8) -> float:
    """The smallest d found in `share` of the runs, between the d that were tried; inf if none.

    >>> rows = [{"part": "power", "test": "A", "d": d, "rate": r} for d, r in ((0.5, 0.6), (1, 1))]
    >>> smallest(rows, "A")
    0.75
    """
    kept = [r for r in rows if r["part"] == "power" and r["test"] == test]
    curve = [(float(str(r["d"])), float(str(r["rate"]))) for r in kept]
    for (before, low), (after, high) in pairwise(curve):
        if low < share <= high:
            return before + (after - before) * (share - low) / (high - low)
    return curve[0][0] if curve and curve[0][1] >= share else float("inf")


def save(rows: Sequence[Row], path: Path) -> None:
    """The rows as CSV, floats with four significant digits."""
    names = ["part", "test", "d", "repetitions", "rejected", "rate", "low", "high"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
