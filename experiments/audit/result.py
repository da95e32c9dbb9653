"""What an audit says: the rows of every section and the verdict's lines, from saved arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.audit.evidence.audit import Audit, read_audit
from experiments.audit.evidence.row import Row
from experiments.audit.evidence.section import Section
from experiments.audit.sections import SECTIONS
from experiments.audit.settings.groups import Settings
from experiments.audit.verdict.criteria import LEVELS
from experiments.audit.verdict.lines import Level, Line, judge, level_status
from experiments.audit.verdict.wording import overall


@dataclass(frozen=True)
class Result:
    """One audit seen by these sections and levels; a number is made when it is asked for."""

    audit: Audit
    sections: Sequence[Section]
    levels: Sequence[Level]

    @property
    def rows(self) -> list[Row]:
        """Every row of the table, section by section."""
        return [row for section in self.sections for row in section.table(self.audit)]

    @property
    def saved_rows(self) -> list[Row]:
        """The rows that `rows.nc` holds: those that are not read off another file."""
        saved = [section for section in self.sections if section.saved]
        return [row for section in saved for row in section.table(self.audit)]

    @cached_property
    def lines(self) -> list[Line]:
        """The verdict's lines, level by level."""
        return judge(self.audit, self.levels)

    @property
    def statuses(self) -> dict[str, str]:
        """Whether each level is met, by its name, in order."""
        return {level.name: level_status(self.lines, level.name) for level in self.levels}

    @property
    def answer(self) -> str:
        """The verdict in one or two sentences."""
        return overall(self.statuses)


def audited(
    folder: Path,
    settings: Settings,
    sections: Sequence[Section] = SECTIONS,
    levels: Sequence[Level] = LEVELS,
) -> Result:
    """The audit of a run's files, of which `analysis.nc` is one; `sections` in the table's order.

    A section or level of one's own is one more entry: `sections=(*SECTIONS, mine)`.
    """
    return Result(read_audit(folder, settings), sections, levels)
