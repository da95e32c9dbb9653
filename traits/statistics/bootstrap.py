"""Intervals by drawing whole groups of rows again, within strata where they are given."""

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import norm

from tracekit.errors import InputError
from traits.statistics.effects import named

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
# of rows along a dim what has no such dim; "mean" is known by name
Statistic = Callable[[Labelled], xr.DataArray] | str
Rows = list[np.ndarray]
AT_ONCE = 1 << 25  # bytes of rows that are drawn at a time


def cluster_bootstrap(
    data: Labelled,
    statistic: Statistic[Labelled],
    *,
    generator: np.random.Generator,
    dim: str = "prompt",
    group: str | None = "group",
    strata: str | None = None,
    repetitions: int = 2000,
    level: float = 0.95,
    interval: str = "percentile",
    many: bool = False,
) -> xr.Dataset:
    """An interval for any statistic, from whole groups drawn again with replacement.

    `statistic` takes `data` with other rows along `dim` (`group` then numbers the draws, so that
    a group drawn twice counts as two) and returns an array without `dim`; "mean" is the mean over
    `dim`, holes left out, of all draws in one product of matrices. `many=True` is for one that
    keeps every other dim: it gets many draws at a time, along a further dim `draw`, which is
    quicker (where groups have different sizes, still one). `group=None`: each row is its own. With
    `strata`, a coordinate constant within groups, each stratum keeps its number of groups.
    `interval` is "percentile" or "bca" (bias-corrected and accelerated). Returns `estimate`, `low`,
    `high`; the attribute `undefined` counts values of draws for which the statistic was not finite
    (no interval can rest on them: where there is one, `low` and `high` are NaN). Raises ValueError
    for fewer than 2 groups, rows without a group, no repetitions, and a level that is not between
    0 and 1. Source: Efron 1987; Davison & Hinkley 1997.

    >>> data = xr.DataArray(np.arange(20.0), dims="prompt")
    >>> found = cluster_bootstrap(data, "mean", generator=np.random.default_rng(0), group=None)
    >>> bool(found["low"] < found["estimate"] < found["high"])
    True
    """
    _check_settings(repetitions, level)
    clusters = _clusters(data, dim, group, strata)
    take = _taker(data, function_of(statistic, dim), dim, group)
    estimate = take([rows for stratum in clusters for rows in stratum])
    values = _replicates(data, statistic, clusters, generator, dim, group, repetitions, many)
    undefined = ~np.isfinite(values)
    # an infinite draw would pull a bound, or leave it to chance
    values[undefined] = np.nan
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if interval == "bca":
        left_out = _jackknife(clusters, take)
        tails = _bca(estimate.values, values, left_out, tails)
    elif interval != "percentile":
        raise InputError(f"The interval {interval!r} was asked for; there are percentile and bca.")
    low, high = (_quantile(values, tail) for tail in tails)
    bounds = {
        "estimate": estimate,
        "low": estimate.copy(data=low),
        "high": estimate.copy(data=high),
    }
    count = sum(map(len, clusters))
    settings = {"n": count, "unit": group or dim, "level": level, "interval": interval}
    return xr.Dataset(bounds, attrs={**settings, "undefined": int(undefined.sum())})


def replicates(
    data: Labelled,
    statistic: Statistic[Labelled],
    *,
    generator: np.random.Generator,
    dim: str = "prompt",
    group: str | None = "group",
    repetitions: int = 2000,
) -> Float[np.ndarray, "draw *other"]:
    """The statistic of each draw of `cluster_bootstrap`, without strata.

    >>> data = xr.DataArray(np.arange(20.0), dims="prompt")
    >>> replicates(data, "mean", generator=np.random.default_rng(0), group=None).shape
    (2000,)
    """
    clusters = _clusters(data, dim, group, None)
    return _replicates(data, statistic, clusters, generator, dim, group, repetitions, many=False)


def function_of(statistic: Statistic[Labelled], dim: str) -> Callable[[Labelled], xr.DataArray]:
    """The statistic as a function, also one that is known by its name.

    >>> function_of("mean", "prompt")(xr.DataArray([1.0, 3.0], dims="prompt")).item()
    2.0
    """
    if callable(statistic):
        return statistic
    if statistic != "mean":
        raise InputError(
            f"The statistic {statistic!r} was asked for; by name there is 'mean'. Give a function."
        )
    return lambda rows: cast(xr.DataArray, rows.mean(dim))


def _check_settings(repetitions: int, level: float) -> None:
    if repetitions < 1 or not 0 < level < 1:
        raise InputError(
            f"A bootstrap of {repetitions} repetitions at level {level} was asked for; there is "
            "at least one repetition, and the level is between 0 and 1, such as 0.95."
        )


def _clusters(data: Labelled, dim: str, group: str | None, strata: str | None) -> list[Rows]:
    size = data.sizes[dim]
    names = np.arange(size) if group is None else named(data, group)
    levels = np.zeros(size, int) if strata is None else named(data, strata)
    rows = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    if len(rows) < 2:
        raise InputError(
            f"A cluster bootstrap needs at least 2 groups, and {group or dim!r} has {len(rows)}. "
            "Take more prompts: tokens and samples of one are not units."
        )
    mixed = [names[row[0]] for row in rows if len(set(levels[row].tolist())) > 1]
    if mixed:
        raise InputError(
            f"Strata must not divide a group, and {strata!r} divides {len(mixed)} of {len(rows)} "
            f"(first: {mixed[0]!r}). Take coarser strata or finer groups."
        )
    found = dict.fromkeys(levels.tolist())
    return [[row for row in rows if levels[row[0]] == value] for value in found]


def _resample(clusters: list[Rows], generator: np.random.Generator) -> Rows:
    return [
        stratum[index]
        for stratum in clusters
        for index in generator.integers(0, len(stratum), size=len(stratum))
    ]


def _replicates(
    data: Labelled,
    statistic: Statistic[Labelled],
    clusters: list[Rows],
    generator: np.random.Generator,
    dim: str,
    group: str | None,
    repetitions: int,
    many: bool,
) -> Float[np.ndarray, "draw *other"]:
    if isinstance(data, xr.DataArray) and statistic == "mean" and not np.isinf(data).any():
        return _means(data.transpose(dim, ...).values, clusters, generator, repetitions)
    take = _taker(data, function_of(statistic, dim), dim, group)
    drawn = [_resample(clusters, generator) for _ in range(repetitions)]
    if not (many and len({len(rows) for stratum in clusters for rows in stratum}) == 1):
        return np.stack([take(rows).values for rows in drawn]).astype(float)
    bare = data.drop_vars(dim, errors="ignore")  # labels of another shape than their own dim
    size = max(AT_ONCE // max(data.nbytes, 1), 1)
    blocks = [
        _together(bare, drawn[at : at + size], function_of(statistic, dim), dim, group)
        for at in range(0, repetitions, size)
    ]
    return np.concatenate(blocks)


def _together(
    data: Labelled,
    drawn: list[Rows],
    statistic: Callable[[Labelled], xr.DataArray],
    dim: str,
    group: str | None,
) -> Float[np.ndarray, "draw *other"]:
    rows = xr.DataArray([np.concatenate(one) for one in drawn], dims=("draw", dim))
    some = data.isel({dim: rows})
    if group is not None:
        number = np.repeat(np.arange(len(drawn[0])), len(drawn[0][0]))
        some = some.assign_coords({group: (dim, number)})
    return statistic(some).transpose("draw", ...).values.astype(float)


def _means(
    values: Float[np.ndarray, "row *other"],
    clusters: list[Rows],
    generator: np.random.Generator,
    repetitions: int,
) -> Float[np.ndarray, "draw *other"]:
    flat = values.reshape(len(values), -1).astype(float)
    there = ~np.isnan(flat)
    every = [rows for stratum in clusters for rows in stratum]
    counts = np.empty((repetitions, len(every)))
    for draw in counts:
        start = 0
        for stratum in clusters:
            n = len(stratum)
            draw[start : start + n] = np.bincount(generator.integers(0, n, size=n), minlength=n)
            start += n
    sums, numbers = (
        counts @ np.stack([array[rows].sum(axis=0) for rows in every])
        for array in (np.where(there, flat, 0.0), there.astype(float))
    )
    # a draw of holes alone has no mean
    means = np.divide(sums, numbers, out=np.full_like(sums, np.nan), where=numbers > 0)
    return means.reshape(repetitions, *values.shape[1:])


def _taker(
    data: Labelled, statistic: Callable[[Labelled], xr.DataArray], dim: str, group: str | None
) -> Callable[[Rows], xr.DataArray]:
    def take(rows: Rows) -> xr.DataArray:
        drawn = data.isel({dim: np.concatenate(rows)})
        if group is not None:
            number = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
            drawn = drawn.assign_coords({group: (dim, number)})
        return statistic(drawn)

    return take


def _jackknife(clusters: list[Rows], take: Callable[[Rows], xr.DataArray]) -> list[np.ndarray]:
    everything = [rows for stratum in clusters for rows in stratum]
    left_out = [
        take([*everything[:k], *everything[k + 1 :]]).values for k in range(len(everything))
    ]
    ends = np.cumsum([len(stratum) for stratum in clusters])[:-1]
    return np.split(np.stack(left_out), ends)


def _bca(
    estimate: np.ndarray, values: np.ndarray, left_out: list[np.ndarray], tails: np.ndarray
) -> np.ndarray:
    # the same sum in another order differs in its last bits, and is a tie
    tie = 1e-9 * np.abs(estimate)
    below = ((values < estimate - tie).mean(axis=0) + (values <= estimate + tie).mean(axis=0)) / 2
    bias = norm.ppf(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    left_out = [np.where(np.isfinite(j), j, np.nan) for j in left_out]
    influence = [(len(j) - 1) * (j.mean(axis=0) - j) for j in left_out]
    cubes = sum((u**3).sum(axis=0) / len(u) ** 3 for u in influence)
    squares = sum((u**2).sum(axis=0) / len(u) ** 2 for u in influence)
    acceleration = cubes / (6 * np.where(squares > 0, squares, 1.0) ** 1.5)
    shifted = bias + norm.ppf(tails).reshape(-1, *[1] * np.ndim(bias))
    return norm.cdf(bias + shifted / (1 - acceleration * shifted))


def _quantile(
    values: Float[np.ndarray, "draw *other"], tail: np.ndarray | np.float64
) -> np.ndarray | np.float64:
    if np.ndim(tail) == 0 and np.isfinite(tail):
        return np.quantile(values, tail, axis=0)
    flat, tails = values.reshape(len(values), -1), np.ravel(tail)
    found = [
        np.quantile(column, t) if np.isfinite(t) else np.nan
        for column, t in zip(flat.T, tails, strict=True)
    ]
    return np.reshape(found, values.shape[1:])
