"""One line of the audit's table, and the table as a Dataset and as text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

HEADER = ("section", "what", "measure", "estimate", "95 % interval", "p", "n", "why not")


@dataclass(frozen=True)
class Row:
    """A number with its interval or p, over `n` prompts; or `reason`, why there is none."""

    section: str
    what: str
    measure: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    n: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        """A number that is none is undecidable, wherever it came from."""
        if not self.reason and not math.isfinite(self.estimate):
            object.__setattr__(self, "reason", "the estimate is not finite")

    @property
    def decided(self) -> bool:
        """Whether there is a number."""
        return not self.reason

    def cells(self) -> tuple[str, ...]:
        """The row as text, without a NaN anywhere."""
        start = (self.section, self.what, self.measure)
        if self.reason:
            return (*start, "undecidable", "", "", str(self.n), self.reason)
        interval = f"{_short(self.low)} to {_short(self.high)}" if math.isfinite(self.low) else ""
        p = f"{self.p:.4f}" if math.isfinite(self.p) else ""
        return (*start, _short(self.estimate), interval, p, str(self.n), "")


def undecidable(section: str, what: str, measure: str, reason: str, n: int = 0) -> Row:
    """A row without a number, and why.

    >>> undecidable("A", "x", "AUROC", "no exploiting response").cells()[3]
    'undecidable'
    """
    return Row(section, what, measure, n=n, reason=reason)


def of_interval(
    section: str, what: str, measure: str, interval: xr.Dataset, n: int, p: float = math.nan
) -> Row:
    """A row of a bootstrap's `estimate`, `low` and `high`; undecidable where one is not finite.

    >>> interval = xr.Dataset({"estimate": 1.0, "low": 0.5, "high": 2.0})
    >>> of_interval("A", "x", "mean", interval, 9).cells()[3:5]
    ('1.000', '0.500 to 2.000')
    """
    estimate, low, high = (float(interval[name]) for name in ("estimate", "low", "high"))
    if not all(map(math.isfinite, (estimate, low, high))):
        return undecidable(section, what, measure, "the estimate is not finite", n)
    return Row(section, what, measure, estimate, low, high, p=p, n=n)


def to_dataset(rows: Sequence[Row]) -> xr.Dataset:
    """Rows as a Dataset over `row`; NaN stands for a number that there is not.

    >>> to_dataset([Row("A", "x", "mean", 1.0)]).sizes["row"]
    1
    """
    table = [asdict(row) for row in rows]
    names = list(table[0])
    columns = {name: np.array([line[name] for line in table]) for name in names}
    return xr.Dataset({name: ("row", values) for name, values in columns.items()})


def from_dataset(rows: xr.Dataset) -> list[Row]:
    """The rows of `to_dataset`.

    >>> from_dataset(to_dataset([Row("A", "x", "mean", 1.0, n=3)]))[0].n
    3
    """
    columns = {name: rows[name].values.tolist() for name in Row.__dataclass_fields__}
    return [
        Row(**dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells as lines with their columns aligned; the last column is not padded.

    >>> aligned([("a", "b"), ("aaa", "b")])
    ['a    b', 'aaa  b']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
