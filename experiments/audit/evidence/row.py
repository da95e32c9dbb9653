"""One line of the audit's table, and the table as a Dataset and as text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import xarray as xr

from traits.statistics.kinds import FEWEST

THESE, OTHERS = "95 %, these kinds", "95 %, other kinds"
HEADER = (
    *("section", "what", "measure", "estimate", THESE, OTHERS, "p"),
    *("p directions", "p placebo", "n", "why not"),
)


@dataclass(frozen=True)
class Row:
    """A number with its interval or p, over `n` prompts; or `reason`, why there is none.

    `low` and `high` are conditional on the kinds of prompt (biases) that were asked; `kinds_low`
    and `kinds_high` draw kinds too, of which there are `kinds` (0: it is no claim over kinds).
    `p_directions` and `p_placebo` are those beside random directions and placebo traits that went
    through the same choices (`standing`), and `no_null` why one that is due is none.
    """

    section: str
    what: str
    measure: str
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    n: int = 0
    reason: str = ""
    kinds_low: float = math.nan
    kinds_high: float = math.nan
    kinds: int = 0
    p_directions: float = math.nan
    p_placebo: float = math.nan
    no_null: str = ""

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
            return (*start, "undecidable", *[""] * 5, str(self.n), self.reason)
        p = [
            f"{one:.4f}" if math.isfinite(one) else ""
            for one in (self.p, self.p_directions, self.p_placebo)
        ]
        intervals = _range(self.low, self.high), self._over_kinds()
        return (*start, _short(self.estimate), *intervals, *p, str(self.n), "")

    def _over_kinds(self) -> str:
        if 0 < self.kinds < FEWEST:
            return f"{self.kinds} kind{'s' * (self.kinds > 1)}: too few"
        return _range(self.kinds_low, self.kinds_high)


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

    With `kinds_low`, `kinds_high` and `kinds` where it has them (`estimates.beside_kinds`).

    >>> interval = xr.Dataset({"estimate": 1.0, "low": 0.5, "high": 2.0})
    >>> of_interval("A", "x", "mean", interval, 9).cells()[3:5]
    ('1.000', '0.500 to 2.000')
    """
    estimate, low, high = (float(interval[name]) for name in ("estimate", "low", "high"))
    if not all(map(math.isfinite, (estimate, low, high))):
        return undecidable(section, what, measure, "the estimate is not finite", n)
    row = Row(section, what, measure, estimate, low, high, p=p, n=n)
    if "kinds" not in interval:
        return row
    others = float(interval["kinds_low"]), float(interval["kinds_high"])
    return replace(row, kinds_low=others[0], kinds_high=others[1], kinds=int(interval["kinds"]))


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
    """The rows of `to_dataset`; a column that a former version did not write is left empty.

    >>> from_dataset(to_dataset([Row("A", "x", "mean", 1.0, n=3)]))[0].n
    3
    """
    # a file of an older run lacks the columns that came later
    there = [name for name in Row.__dataclass_fields__ if name in rows]
    columns = {name: rows[name].values.tolist() for name in there}
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


def _range(low: float, high: float) -> str:
    return f"{_short(low)} to {_short(high)}" if math.isfinite(low) else ""


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"
