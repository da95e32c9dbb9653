"""The verdict, by rule: three levels of lines, each met, not met, or undecidable."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr
from scipy.stats import norm

MET, NOT_MET, UNDECIDABLE = "met", "not met", "undecidable"
LEVELS = ("shift", "specific", "generalises")
PLAN = {
    "shift": "minimum: at least two traits differ from clean and go with exploitation (r > 0.5)",
    "specific": "strong: balanced accuracy above 70 %, decomposition pairs diverge as predicted",
    "generalises": "paper-worthy: beats what is known on held-out biases, a layer and trait story",
}


@dataclass(frozen=True)
class Line:
    """One criterion: what was asked, what was found, and what follows."""

    level: str
    asked: str
    found: str
    status: str


def above(estimate: float, low: float, high: float, threshold: float) -> str:
    """Whether a value is above a threshold, from its interval: the bounds decide.

    >>> above(0.75, 0.71, 0.8, 0.7), above(0.6, 0.5, 0.69, 0.7), above(0.72, 0.6, 0.8, 0.7)
    ('met', 'not met', 'undecidable')
    """
    if not all(map(math.isfinite, (estimate, low, high))):
        return UNDECIDABLE
    if low > threshold:
        return MET
    return NOT_MET if high <= threshold else UNDECIDABLE


def needed(n: int, low: float, high: float, distance: float, power: float = 0.8) -> int:
    """How many prompts would put the interval on one side of a threshold `distance` away.

    The width shrinks with the root of n; for a two-sided 5 % test of `power`.

    >>> needed(100, 0.4, 0.6, 0.1)
    205
    """
    error = (high - low) / (2 * norm.ppf(0.975))
    wanted = abs(distance) / (norm.ppf(0.975) + norm.ppf(power))
    return max(n + 1, int(np.ceil(n * (error / wanted) ** 2))) if wanted > 0 else n + 1


def by_interval(
    level: str, asked: str, what: str, found: Sequence[float], threshold: float, n: int, gap: float
) -> Line:
    """A line about a value above a threshold; `found` is (estimate, low, high).

    Undecidable lines name the n that would decide at a distance of `gap`.

    >>> by_interval("shift", "r > 0.5", "r", (0.4, 0.2, 0.6), 0.5, 20, 0.1).status
    'undecidable'
    """
    estimate, low, high = found
    if not all(map(math.isfinite, found)):
        return unknown(level, asked, f"{what}: the estimate is not finite")
    status = above(estimate, low, high, threshold)
    shown = f"{what} {estimate:.2f} ({low:.2f} to {high:.2f}), {n} prompts"
    if status == UNDECIDABLE:
        shown += f"; about {needed(n, low, high, gap)} would decide"
    return Line(level, asked, shown, status)


def by_test(
    level: str,
    asked: str,
    p: float,
    alpha: float,
    interval: Sequence[float],
    smallest: float,
    n: int,
) -> Line:
    """A line about a test, with the interval (low, high) of its AUROC.

    p at most `alpha`: met. Otherwise not met where the interval excludes the smallest effect of
    interest, and undecidable where it does not.

    >>> by_test("specific", "told apart", 0.3, 0.05, (0.4, 0.7), 0.6, 50).status
    'undecidable'
    """
    low, high = interval
    if not all(map(math.isfinite, (p, low, high))):
        return unknown(level, asked, "p or its interval is not finite")
    shown = f"p = {p:.4f}, {n} prompts"
    if p <= alpha:
        return Line(level, asked, shown, MET)
    if high < smallest and low > 1 - smallest:
        return Line(level, asked, f"{shown}; an AUROC of {smallest:.2f} is excluded", NOT_MET)
    more = needed(n, low, high, smallest - 0.5)
    return Line(
        level, asked, f"{shown}; about {more} would decide at AUROC {smallest:.2f}", UNDECIDABLE
    )


def unknown(level: str, asked: str, reason: str) -> Line:
    """A line that could not be decided, and why.

    >>> unknown("shift", "r > 0.5", "no exploiting response").status
    'undecidable'
    """
    return Line(level, asked, reason, UNDECIDABLE)


def level_status(lines: Sequence[Line], level: str) -> str:
    """A level is met when all its lines are, not met when one is not, else undecidable.

    >>> level_status([Line("shift", "", "", MET), Line("shift", "", "", UNDECIDABLE)], "shift")
    'undecidable'
    """
    found = {line.status for line in lines if line.level == level}
    if NOT_MET in found:
        return NOT_MET
    return MET if found == {MET} else UNDECIDABLE


def overall(lines: Sequence[Line]) -> str:
    """The highest level that is met with all below it, in words that claim no intent.

    >>> overall([Line("shift", "", "", NOT_MET)])
    'No level is met: no exploitation-specific representation is shown.'
    """
    reached = []
    for level in LEVELS:
        if level_status(lines, level) != MET:
            break
        reached.append(level)
    if not reached:
        undecided = all(level_status(lines, level) != NOT_MET for level in LEVELS[:1])
        end = "is decided" if undecided else "is shown"
        return f"No level is met: no exploitation-specific representation {end}."
    if reached == ["shift"]:
        return "Met: shift. That it is specific to exploiting is not shown."
    return f"Met: {', '.join(reached)}. An exploitation-specific representation is shown."


def to_dataset(lines: Sequence[Line]) -> xr.Dataset:
    """The lines over `line`, for netCDF.

    >>> to_dataset([unknown("shift", "r > 0.5", "none")]).sizes["line"]
    1
    """
    table = [asdict(line) for line in lines]
    return xr.Dataset(
        {name: ("line", np.array([line[name] for line in table], np.str_)) for name in table[0]}
    )


def from_dataset(found: xr.Dataset) -> list[Line]:
    """The lines of `to_dataset`.

    >>> from_dataset(to_dataset([unknown("shift", "r > 0.5", "none")]))[0].found
    'none'
    """
    names = list(Line.__dataclass_fields__)
    columns = [found[name].values.astype(str).tolist() for name in names]
    return [Line(*values) for values in zip(*columns, strict=True)]
