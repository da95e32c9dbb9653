"""A rule's status beside its sentence, for each kind of number that a line is judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.audit.evidence.row import Row
from experiments.audit.verdict import rules, wording
from experiments.audit.verdict.rules import NOT_MET, UNDECIDABLE, Interval


@dataclass(frozen=True)
class Judgement:
    """What follows for one criterion (`status`), and the sentence that says from what (`found`)."""

    status: str
    found: str


def by_interval(
    what: str, value: Interval, threshold: float, n: int, gap: float, unit: str = "prompts"
) -> Judgement:
    """Whether a value is above a threshold; undecidable: how many units decide at a `gap`.

    >>> by_interval("r", (0.4, 0.2, 0.6), 0.5, 20, 0.1).status
    'undecidable'
    """
    if not all(map(math.isfinite, value)):
        return unknown(f"{what}: the estimate is not finite")
    status, sentence = rules.above(value, threshold), wording.interval(what, value, n, unit)
    if status == UNDECIDABLE:
        sentence += f"; {wording.would_decide(rules.needed(n, *value[1:], gap))}"
    return Judgement(status, sentence)


def by_test(
    p: float, alpha: float, interval: tuple[float, float], smallest: float, n: int
) -> Judgement:
    """Whether a test tells two kinds apart, with the interval (low, high) of its AUROC.

    >>> by_test(0.3, 0.05, (0.4, 0.7), 0.6, 50).status
    'undecidable'
    """
    if not all(map(math.isfinite, (p, *interval))):
        return unknown("p or its interval is not finite")
    status, sentence = rules.told_apart(p, alpha, interval, smallest), f"p = {p:.4f}, {n} prompts"
    if status == NOT_MET:
        sentence += f"; an AUROC of {smallest:.2f} is excluded"
    if status == UNDECIDABLE:
        more = rules.needed(n, *interval, smallest - 0.5)
        sentence += f"; {wording.would_decide(more, smallest)}"
    return Judgement(status, sentence)


def beyond(judged: Judgement, row: Row, alpha: float) -> Judgement:
    """What was judged by a test alone, held against directions: a row's p beside them.

    >>> beyond(Judgement("met", "p = 0.01"), Row("A", "x", "t", 3.0, p_directions=0.8), 0.05)
    Judgement(status='not met', found='p = 0.01; beside random directions p = 0.800')
    """
    status = rules.beyond(judged.status, row.p_directions, row.p_placebo, alpha)
    beside = wording.beside(row.p_directions, row.p_placebo, row.no_null)
    return Judgement(status, f"{judged.found}; {beside}")


def furthest_in(rows: Sequence[Row]) -> Row:
    """The first row with the largest p beside each null, and a reason where one has none.

    >>> rows = [Row("A", "x", "t", 3.0, p_directions=p, p_placebo=0.01) for p in (0.1, 0.2)]
    >>> furthest_in(rows).p_directions
    0.2
    """
    directions, placebo = (
        float(np.max([getattr(row, name) for row in rows]))
        for name in ("p_directions", "p_placebo")
    )
    reason = next((row.no_null for row in rows if row.no_null), "")
    return replace(rows[0], p_directions=directions, p_placebo=placebo, no_null=reason)


def by_rows(rows: Sequence[Row], alpha: float, reason: str) -> Judgement:
    """Whether every row of a section is significant; `reason` where there is no row.

    >>> by_rows([Row("nulls", "shuffled pairs", "AUROC", 0.5, p=0.02)], 0.05, "").found
    'shuffled pairs: p = 0.020'
    """
    p = {row.what: row.p for row in rows if row.decided}
    lacking = {row.what: row.reason for row in rows if not row.decided}
    tests = [rules.significant(value, alpha) for value in p.values()]
    status = rules.all_met([*tests, *[UNDECIDABLE for _ in lacking]])
    if status == UNDECIDABLE:
        return unknown(wording.reasons(lacking) or reason)
    return Judgement(status, wording.tests(p))


def too_few(n: int, alpha: float, unit: str = "prompts") -> Judgement | None:
    """Undecidable where no signs of `n` units could be significant; None where some could.

    >>> too_few(4, 0.05).found
    'with 4 prompts no p below 0.125 is possible; 6 would do'
    """
    if rules.attainable(n) <= alpha:
        return None
    least = f"{rules.attainable(n):.3f}".rstrip("0").rstrip(".")
    return unknown(
        f"with {n} {unit} no p below {least} is possible; {rules.enough(alpha)} would do"
    )


def unknown(reason: str) -> Judgement:
    """What could not be decided, and why.

    >>> unknown("no exploiting response").status
    'undecidable'
    """
    return Judgement(UNDECIDABLE, reason)
