"""The section on data: answers that no statistic has, since their saved numbers are not finite."""

from __future__ import annotations

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.finite import without_numbers
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section

HEADING, SHOWN = "data", 3


def rows(audit: Audit) -> list[Row]:
    """A row that says which answers are left out; none where none is."""
    where = without_numbers(audit.folder)
    if not where:
        return []
    some = ", ".join(f"{name} ({file})" for name, file in list(where.items())[:SHOWN])
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    reason = f"not finite, and left out of every row: {some}{more}"
    what = f"{len(where)} answer{'s' * (len(where) > 1)}"
    return [undecidable(HEADING, what, "finite numbers", reason)]


SECTION = Section(HEADING, "What the run's files do not say in numbers.", rows)
