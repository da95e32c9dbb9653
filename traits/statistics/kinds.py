"""Intervals for kinds of prompt that were not asked: kinds are drawn first, then their prompts."""

from typing import TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from tracekit.errors import InputError
from traits.statistics.bootstrap import Statistic, function_of, replicates
from traits.statistics.effects import named

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
FEWEST, FEW = 3, 10  # kinds that an interval needs, and that the bootstrap needs


def over_kinds(
    data: Labelled,
    statistic: Statistic[Labelled],
    *,
    generator: np.random.Generator,
    dim: str = "prompt",
    kind: str = "bias",
    group: str | None = "group",
    repetitions: int = 2000,
    level: float = 0.95,
) -> xr.Dataset:
    """The mean over kinds of a statistic of each, with an interval that holds for other kinds.

    `statistic` takes the rows of one kind (a coordinate of `data` along `dim`) and returns an
    array without `dim`; "mean" is known by name (`cluster_bootstrap`). The kinds are the first
    stage of the sample and the prompts (`group`; None: each row) within them the second, so that
    the spread between kinds is in the interval; no outcome is held fixed. Below ten kinds it is
    Student's t of the kinds' statistics, to which the second stage has already added its noise; it
    is exact for normal ones and conservative where their spreads differ. From ten on it is the
    studentised bootstrap of both stages, `stages`. Returns `estimate`, `low`, `high`; attributes
    `kinds`, `method`, `level`. Kinds that do not vary leave an interval without width. Raises
    ValueError for fewer than 3 kinds, and where a kind's statistic is not finite. Sources:
    Ibragimov & Müller 2010; Davison & Hinkley 1997, sections 3.8 and 5.2; Cameron, Gelbach &
    Miller 2008 (few clusters).

    >>> kinds = {"bias": ("prompt", np.repeat(["vote", "film", "moon"], 4))}
    >>> data = xr.DataArray(np.arange(12.0), kinds, "prompt")
    >>> found = over_kinds(data, "mean", generator=np.random.default_rng(0), group=None)
    >>> found["estimate"].item(), found["low"].item() < 0, found.attrs["method"]
    (5.5, True, 't')
    """
    names = list(dict.fromkeys(named(data, kind).tolist()))
    parts = [data.isel({dim: np.flatnonzero(data[kind].values == name)}) for name in names]
    of = function_of(statistic, dim)
    each = [of(part).drop_vars(kind, errors="ignore") for part in parts]
    by_kind = np.stack([one.values for one in each]).astype(float)
    replicates = None
    if len(parts) >= FEW:
        replicates = np.stack(
            [_replicates(part, statistic, generator, dim, group, repetitions) for part in parts]
        )
    low, high = stages(by_kind, replicates, generator, repetitions, level)
    bounds = {"estimate": by_kind.mean(axis=0), "low": low, "high": high}
    method = "t" if replicates is None else "two-stage bootstrap-t"
    attributes = {"kinds": len(parts), "method": method, "level": level}
    return xr.Dataset({n: each[0].copy(data=v) for n, v in bounds.items()}, attrs=attributes)


def stages(
    by_kind: Float[np.ndarray, "kind *other"],
    replicates: Float[np.ndarray, "kind draw *other"] | None,
    generator: np.random.Generator,
    repetitions: int = 2000,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "*other"], Float[np.ndarray, "*other"]]:
    """The bounds of `over_kinds` from each kind's statistic, and draws of it from its own prompts.

    Without `replicates` they are Student's t with kinds − 1 degrees of freedom. With them, each
    repetition draws kinds, and for each a draw of its prompts, and is studentised by its own
    spread over kinds: an unstudentised bootstrap counts the noise of the prompts twice. Draws
    that are not finite (a single outcome) are passed over.

    >>> low, high = stages(np.array([0.4, 0.5, 0.6]), None, np.random.default_rng(0))
    >>> round(low.item(), 3), round(high.item(), 3)
    (0.252, 0.748)
    """
    _check(by_kind, level)
    count, mean = len(by_kind), by_kind.mean(axis=0)
    error = by_kind.std(axis=0, ddof=1) / np.sqrt(count)
    tails = np.array([(1 + level) / 2, (1 - level) / 2])
    if replicates is None:
        reach = stats.t.ppf(tails, count - 1).reshape(2, *[1] * mean.ndim)
    else:
        drawn = _drawn(replicates, generator, repetitions)
        spread = drawn.std(axis=1, ddof=1) / np.sqrt(count)
        apart = drawn.mean(axis=1) - mean
        # where nothing varies nothing is apart either
        reach = np.quantile(apart / np.where(spread > 0, spread, np.inf), tails, axis=0)
    low, high = mean - reach * error
    return np.asarray(low), np.asarray(high)


def _check(by_kind: np.ndarray, level: float) -> None:
    if len(by_kind) < FEWEST or not 0 < level < 1:
        raise InputError(
            f"An interval at level {level} over {len(by_kind)} kinds of prompt was asked for; it "
            f"needs {FEWEST} kinds at least, and a level between 0 and 1. Ask about more kinds, or "
            "give the interval for these kinds alone (cluster_bootstrap)."
        )
    holes = int((~np.isfinite(by_kind)).reshape(len(by_kind), -1).any(axis=1).sum())
    if holes:
        raise InputError(
            f"An interval over {len(by_kind)} kinds of prompt was asked for, and the statistic of "
            f"{holes} is not finite. Leave out kinds that say nothing, such as one with a single "
            "outcome."
        )


def _replicates(
    part: Labelled,
    statistic: Statistic[Labelled],
    generator: np.random.Generator,
    dim: str,
    group: str | None,
    repetitions: int,
) -> np.ndarray:
    names = named(part, group) if group is not None else np.arange(part.sizes[dim])
    if len(set(names.tolist())) < 2:
        # one prompt is the same in every draw
        value: np.ndarray = function_of(statistic, dim)(part).values.astype(float)
        return np.broadcast_to(value, (repetitions, *value.shape))
    return replicates(
        part, statistic, generator=generator, dim=dim, group=group, repetitions=repetitions
    )


def _drawn(
    replicates: np.ndarray, generator: np.random.Generator, repetitions: int
) -> Float[np.ndarray, "repetition kind *other"]:
    count, size = replicates.shape[:2]
    fine = np.isfinite(replicates).reshape(count, size, -1).all(axis=-1)
    chosen = generator.integers(count, size=(repetitions, count))
    # the n-th of a kind's finite draws, at random
    order, number = np.argsort(~fine, axis=1, kind="stable"), fine.sum(axis=1)
    nth = (generator.random(chosen.shape) * number[chosen]).astype(int)
    return replicates[chosen, order[chosen, nth]]
