"""What the held-out kinds of prompt can carry: a claim over kinds has the kind as its unit."""

from __future__ import annotations

from collections.abc import Callable

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.estimates import kinds_bounds
from experiments.audit.sections.detecting import competitors
from experiments.audit.verdict.judgement import Judgement, by_interval, too_few, unknown
from traits.statistics.kinds import FEWEST

Judge = Callable[[Audit], Judgement]


def carried(judge: Judge) -> Judge:
    """The same judge, undecidable where the held-out kinds are too few to carry a claim."""

    def judged(audit: Audit) -> Judgement:
        few = few_kinds(audit.held_out_kinds, audit.settings.hypothesis.alpha)
        return unknown(audit.reason) if audit.reason else few or judge(audit)

    return judged


def few_kinds(kinds: int, alpha: float) -> Judgement | None:
    """Undecidable where no signs of that many kinds could be significant at `alpha`.

    >>> few_kinds(5, 0.05).found
    'with 5 held-out kinds no p below 0.062 is possible; 6 would do'
    """
    return too_few(kinds, alpha, "held-out kinds")


def across(audit: Audit) -> Judgement:
    """Whether the trait score tells exploiting answers in kinds of prompt that were not asked."""
    return over_kinds(audit, "AUROC", "auroc trait score", 0.5)


def over_kinds(audit: Audit, what: str, quantity: str, threshold: float) -> Judgement:
    """Whether a quantity of detection is above a threshold, by its interval for other kinds."""
    if (kinds := audit.held_out_kinds) < FEWEST:
        return unknown(audit.reason or f"{kinds} held-out kinds; {FEWEST} are the least")
    value = kinds_bounds(audit.once(competitors.compared), quantity)
    gap = audit.settings.hypothesis.smallest - 0.5
    return by_interval(what, value, threshold, kinds, gap, "kinds")
