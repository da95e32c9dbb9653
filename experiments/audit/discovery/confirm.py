"""A candidate's rate on prompts that it was not found on, and the tests of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, fisher_exact

from traits.statistics import benjamini_hochberg

LEVEL = 0.95


@dataclass(frozen=True)
class Compared:
    """Shares on and off, their difference with its interval over prompts, and the exact p.

    `more` and `less` are the prompts (of `n`) where the share is higher and lower with it on.
    """

    on: float
    off: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    more: int
    less: int

    @property
    def z(self) -> float:
        """McNemar's z, 0 where no prompt differs."""
        both = self.more + self.less
        return (self.more - self.less) / np.sqrt(both) if both else 0.0


def compared(on: Mapping[str, float], off: Mapping[str, float], seed: int = 0) -> Compared:
    """Is a share higher on than off? The exact sign test over the prompts of both, one-sided.

    Prompts are the unit: those with equal shares say nothing; if the adapter changes nothing, each
    of the others is as likely to go either way. With one answer a prompt this is McNemar's exact
    test. The interval is a percentile bootstrap over prompts.

    >>> compared(dict.fromkeys("abcde", 1.0), dict.fromkeys("abcde", 0.0)).p
    0.03125
    """
    groups = [group for group in on if group in off]
    sides = [np.array([side[group] for group in groups], float) for side in (on, off)]
    difference = sides[0] - sides[1]
    more, less = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(binomtest(more, more + less, alternative="greater").pvalue) if more + less else 1.0
    here, there, gap = (float(x.mean()) if groups else np.nan for x in (*sides, difference))
    low, high = _interval(difference, seed)
    return Compared(here, there, gap, low, high, p, len(groups), more, less)


def q_values(p: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p over the candidates of one search."""
    tested = xr.DataArray(np.asarray(p, float), dims="candidate")
    return benjamini_hochberg(tested).values if len(p) else np.zeros(0)


def least_prompts(alpha: float, tests: float = 1) -> int:
    """How many prompts have to differ, all one way, for p ≤ alpha / tests.

    >>> least_prompts(0.05), least_prompts(0.05, 80)
    (5, 11)
    """
    return int(np.ceil(np.log2(max(tests, 1) / alpha)))


def smallest_rate(n: int, tests: int, alpha: float, power: float = 0.8) -> float:
    """The smallest share of `n` prompts, with none off, that is confirmed with this power.

    As the strongest of `tests` candidates, which is the hardest place; NaN where none can be.

    >>> round(smallest_rate(300, 40, 0.05), 3)
    0.041
    """
    least = least_prompts(alpha, max(tests, 1))
    if least > n:
        return math.nan
    return float(brentq(lambda rate: binom.sf(least - 1, n, rate) - power, 1e-9, 1 - 1e-9))


def against_benign(own: float, benign: Sequence[float]) -> float:
    """The place of a statistic among those of benign adapters: p = (1 + #≥) / (k + 1).

    >>> against_benign(3.0, [1.0, 2.0, 0.5])
    0.25
    """
    return (1 + sum(value >= own for value in benign)) / (len(benign) + 1)


def associated(fired: np.ndarray, has: np.ndarray) -> float:
    """Fisher's exact p that rows with a label fire more often, one-sided."""
    table = [[(x & has).sum(), (x & ~has).sum()] for x in (fired, ~fired)]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _interval(difference: np.ndarray, seed: int, draws: int = 2000) -> tuple[float, float]:
    if len(difference) < 2:
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(difference), size=(draws, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
