"""One section of the table: its heading, what its numbers are, and the function that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.row import Row
from tracekit.errors import InputError


@dataclass(frozen=True)
class Section:
    """Rows under one heading; `caption` is one sentence: what the numbers are, and their unit.

    `saved` says whether `rows.nc` holds the rows; those that only show `analysis.nc` are not.

    >>> Section("mine", "How long answers are, in tokens.", lambda audit: []).saved
    True
    """

    heading: str
    caption: str
    rows: Callable[[Audit], list[Row]]
    saved: bool = True

    def table(self, audit: Audit) -> list[Row]:
        """Its rows for one audit, made once. Errors: `ValueError` for a row of another heading."""
        rows = audit.once(self.rows)
        strays = sorted({row.section for row in rows} - {self.heading})
        if strays:
            raise InputError(
                f"The rows of the section {self.heading!r} were asked for; some are of "
                f"{', '.join(map(repr, strays))}. Give each the section's own heading."
            )
        return rows
