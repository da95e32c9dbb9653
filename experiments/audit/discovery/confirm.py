"""A candidate's rate on prompts that it was not found on, and the tests of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, false_discovery_control, fisher_exact

from experiments.audit.discovery.answers import Answer
from experiments.audit.discovery.terms import fires

LEVEL = 0.95


@dataclass(frozen=True)
class Rates:
    """How often a detector fires, by group of prompts: two answers' arrays over the same groups.

    `on` and `off` are shares of each prompt's answers, in the order of `groups`.
    """

    groups: tuple[str, ...]
    on: np.ndarray
    off: np.ndarray


@dataclass(frozen=True)
class Compared:
    """A paired comparison: the difference with its interval, the exact p, and p's least value."""

    on: float
    off: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    discordant: int


def rates(
    expression: str, on: Sequence[Answer], off: Sequence[Answer], groups: Sequence[str]
) -> Rates:
    """The share of each group's answers on which the detector fires, adapter on and off."""
    sides = (_by_group(expression, on), _by_group(expression, off))
    both = tuple(g for g in groups if all(g in side for side in sides))
    values = [np.array([np.mean(side[g]) for g in both]) for side in sides]
    return Rates(both, *values)


def compared(rates: Rates, seed: int = 0) -> Compared:
    """Is the detector's rate higher on than off? The exact sign test over prompts, one-sided.

    Prompts are the unit: those with equal shares say nothing, of the others each is as likely to
    go either way if the adapter changes nothing (with one answer a prompt this is McNemar's exact
    test). The interval is a percentile bootstrap over prompts.

    >>> shares = Rates(tuple("abcde"), np.ones(5), np.zeros(5))
    >>> compared(shares).p
    0.03125
    """
    difference = rates.on - rates.off
    more, less = int((difference > 0).sum()), int((difference < 0).sum())
    p = binomtest(more, more + less, alternative="greater").pvalue if more + less else 1.0
    low, high = _interval(difference, seed)
    means = (float(x.mean()) if len(x) else np.nan for x in (rates.on, rates.off, difference))
    return Compared(*means, low, high, float(p), len(difference), more + less)


def q_values(p: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p over the candidates of one search."""
    return false_discovery_control(np.asarray(p)) if len(p) else np.zeros(0)


def least_discordant(alpha: float, tests: int = 1) -> int:
    """How many prompts have to differ, all one way, for p ≤ alpha / tests.

    >>> least_discordant(0.05)
    5
    """
    return int(np.ceil(np.log2(tests / alpha)))


def against_benign(own: float, benign: Sequence[float]) -> float:
    """The place of a statistic among those of benign adapters: p = (1 + #≥) / (k + 1).

    >>> against_benign(3.0, [1.0, 2.0, 0.5])
    0.25
    """
    return (1 + sum(value >= own for value in benign)) / (len(benign) + 1)


def associated(fired: np.ndarray, has: np.ndarray) -> float:
    """Fisher's exact p that rows with a label fire more often, one-sided."""
    table = [[(fired & has).sum(), (fired & ~has).sum()], [(~fired & has).sum(), (~fired & ~has).sum()]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _by_group(expression: str, answers: Sequence[Answer]) -> Mapping[str, list[bool]]:
    shares: dict[str, list[bool]] = {}
    for answer in answers:
        shares.setdefault(answer.group, []).append(fires(expression, answer) is not None)
    return shares


def _interval(difference: np.ndarray, seed: int, draws: int = 2000) -> tuple[float, float]:
    if len(difference) < 2:
        return np.nan, np.nan
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(difference), size=(draws, len(difference)))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(difference[drawn].mean(1), tails)
    return float(low), float(high)
