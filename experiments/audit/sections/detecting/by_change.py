"""The section on what is moved: can exploiting responses be told by what the adapter adds to them?

The procedure of `detection`, of the mean over a response's tokens under the adapter's weights less
the mean over the same tokens under the clean weights. What the words of an answer say, its topic
among it, is in both and goes out, so that a direction is found that is several times weaker
(`experiments/benchmarks/audits/detection_power.py`). It decides no line of the verdict: it was
added when the results of the first subject were known.
"""

from __future__ import annotations

from dataclasses import replace

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.measures import means_of
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import Standing, change_of, lacking, stand, unheld
from experiments.audit.sections.detecting import detection

HEADING, WHAT = "detection by the change", "exploiting answers are moved otherwise, held-out biases"


def rows(audit: Audit) -> list[Row]:
    """The max-T over the primary traits, the weighted score, and each trait."""
    if audit.reason:
        return [undecidable(HEADING, WHAT, "max-T", audit.reason)]
    best, weighted, *traits = detection.tested(audit, HEADING, WHAT, scores(audit), HEADING)
    beside = audit.once(standing)
    return [beside.of(best), weighted, *(beside.of(row, n) for n, row in enumerate(traits))]


def scores(audit: Audit) -> Scores:
    """Response means of the primary traits under the adapter's less under the clean weights."""
    moved = means_of(audit.rows) - means_of(audit.rows, "clean_")
    return replace(audit.scores(), values=moved.sel(trait=list(audit.traits)).values)


def standing(audit: Audit) -> Standing:
    """How they stand beside directions through the same layer choice and max-T."""
    if reason := audit.reason or lacking(audit, "organism", "clean"):
        return unheld(reason)
    used, _ = detection.primary_rows(audit)
    moved = change_of(audit, "organism")[used]
    return stand(audit, detection.statistic(audit), moved, places=audit.allowed)


SECTION = Section(
    HEADING,
    "Exploiting answers against the organism's other answers, by how far the adapter moves the "
    "traits on the same tokens: the adapter's weights less the clean ones. Far more sensitive than "
    "the scores themselves; no line of the verdict.",
    rows,
)
