"""The verdict's rules: from numbers to met, not met, or undecidable; no sentence is made here."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy.stats import norm

MET, NOT_MET, UNDECIDABLE = "met", "not met", "undecidable"
Interval = tuple[float, float, float]  # estimate, low, high


def all_met(statuses: Iterable[str]) -> str:
    """Met where all are, not met where one is not, else undecidable; so is nothing at all.

    >>> all_met([MET, UNDECIDABLE]), all_met([NOT_MET, UNDECIDABLE]), all_met([])
    ('undecidable', 'not met', 'undecidable')
    """
    there = set(statuses)
    if NOT_MET in there:
        return NOT_MET
    return MET if there == {MET} else UNDECIDABLE


def at_least(count: int, least: int) -> str:
    """Whether there are enough.

    >>> at_least(2, 2), at_least(1, 2)
    ('met', 'not met')
    """
    return MET if count >= least else NOT_MET


def above(interval: Interval, threshold: float) -> str:
    """Whether a value is above a threshold, from its interval: the bounds decide.

    >>> above((0.75, 0.71, 0.8), 0.7), above((0.6, 0.5, 0.69), 0.7), above((0.72, 0.6, 0.8), 0.7)
    ('met', 'not met', 'undecidable')
    """
    _, low, high = interval
    if not all(map(math.isfinite, interval)):
        return UNDECIDABLE
    if low > threshold:
        return MET
    return NOT_MET if high <= threshold else UNDECIDABLE


def gained(interval: Interval) -> str:
    """Whether something is gained: not where the estimate is none, whatever its upper bound.

    >>> gained((-0.1, -0.3, 0.2)), gained((0.1, -0.1, 0.3))
    ('not met', 'undecidable')
    """
    return NOT_MET if interval[0] <= 0 else above(interval, 0.0)


def significant(p: float, alpha: float) -> str:
    """Whether p is small enough; undecidable where it is none.

    >>> significant(0.05, 0.05), significant(math.nan, 0.05)
    ('met', 'undecidable')
    """
    if not math.isfinite(p):
        return UNDECIDABLE
    return MET if p <= alpha else NOT_MET


def beyond(test: str, p_directions: float, p_placebo: float, alpha: float) -> str:
    """A test that is met, held against directions: it has to be beyond both nulls.

    What the test alone leaves open or denies stays so.

    >>> beyond(MET, 0.02, 0.04, 0.05), beyond(MET, 0.3, math.nan, 0.05)
    ('met', 'not met')
    >>> beyond(MET, 0.02, math.nan, 0.05), beyond(NOT_MET, 0.02, 0.02, 0.05)
    ('undecidable', 'not met')
    """
    if test != MET:
        return test
    return all_met(significant(p, alpha) for p in (p_directions, p_placebo))


def attainable(n: int) -> float:
    """The smallest two-sided p that sign flips over `n` prompts can give: 2 of 2ⁿ.

    >>> attainable(4)
    0.125
    """
    return min(2.0 ** (1 - n), 1.0)


def enough(alpha: float) -> int:
    """How many prompts make p at most `alpha` possible by sign flips.

    >>> enough(0.05)
    6
    """
    return int(np.ceil(1 - np.log2(alpha)))


def told_apart(p: float, alpha: float, bounds: tuple[float, float], smallest: float) -> str:
    """Whether a test tells two kinds apart, with the bounds (low, high) of its AUROC.

    p at most `alpha`: met. Otherwise not met where the interval excludes the smallest effect of
    interest, and undecidable where it does not.

    >>> told_apart(0.3, 0.05, (0.4, 0.7), 0.6), told_apart(0.3, 0.05, (0.45, 0.55), 0.6)
    ('undecidable', 'not met')
    """
    low, high = bounds
    if not all(map(math.isfinite, (p, low, high))):
        return UNDECIDABLE
    if p <= alpha:
        return MET
    return NOT_MET if high < smallest and low > 1 - smallest else UNDECIDABLE


def absent(interval: Interval, smallest: float) -> str:
    """Whether an AUROC shows nothing: not above chance, and below the smallest of interest.

    >>> absent((0.5, 0.45, 0.55), 0.6), absent((0.7, 0.6, 0.8), 0.6), absent((0.6, 0.4, 0.8), 0.6)
    ('met', 'not met', 'undecidable')
    """
    _, low, high = interval
    if low > 0.5:
        return NOT_MET
    return MET if high < smallest else UNDECIDABLE


def needed(n: int, low: float, high: float, distance: float, power: float = 0.8) -> int:
    """How many prompts would put the interval on one side of a threshold `distance` away.

    The width shrinks with the root of n; for a two-sided 5 % test of `power`.

    >>> needed(100, 0.4, 0.6, 0.1)
    205
    """
    error = (high - low) / (2 * norm.ppf(0.975))
    wanted = abs(distance) / (norm.ppf(0.975) + norm.ppf(power))
    return max(n + 1, int(np.ceil(n * (error / wanted) ** 2))) if wanted > 0 else n + 1
