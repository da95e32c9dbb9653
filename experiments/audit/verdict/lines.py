"""The verdict's lines: a criterion with what was found, level by level, and as a Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.verdict import rules
from experiments.audit.verdict.judgement import Judgement


@dataclass(frozen=True)
class Criterion:
    """One line of the verdict: what is asked, in words, and the function that judges it."""

    asked: str
    judge: Callable[[Audit], Judgement]


@dataclass(frozen=True)
class Level:
    """A level of the verdict: met where all its criteria are; `plan` says what it stands for."""

    name: str
    plan: str
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True)
class Line:
    """One criterion: what was asked, what was found, and what follows."""

    level: str
    asked: str
    found: str
    status: str


def judge(audit: Audit, levels: Sequence[Level]) -> list[Line]:
    """All lines, level by level."""
    lines = []
    for level in levels:
        for criterion in level.criteria:
            judged = criterion.judge(audit)
            lines.append(Line(level.name, criterion.asked, judged.found, judged.status))
    return lines


def level_status(lines: Sequence[Line], level: str) -> str:
    """A level is met when all its lines are, not met when one is not, else undecidable.

    >>> met, open = Line("shift", "", "", "met"), Line("shift", "", "", "undecidable")
    >>> level_status([met, open], "shift")
    'undecidable'
    """
    return rules.all_met(line.status for line in lines if line.level == level)


def to_dataset(lines: Sequence[Line]) -> xr.Dataset:
    """The lines over `line`, for netCDF.

    >>> to_dataset([Line("shift", "r > 0.5", "none", "undecidable")]).sizes["line"]
    1
    """
    table = [asdict(line) for line in lines]
    return xr.Dataset(
        {name: ("line", np.array([line[name] for line in table], np.str_)) for name in table[0]}
    )


def from_dataset(lines: xr.Dataset) -> list[Line]:
    """The lines of `to_dataset`.

    >>> from_dataset(to_dataset([Line("shift", "r > 0.5", "none", "undecidable")]))[0].found
    'none'
    """
    names = list(Line.__dataclass_fields__)
    columns = [lines[name].values.astype(str).tolist() for name in names]
    return [Line(*values) for values in zip(*columns, strict=True)]
