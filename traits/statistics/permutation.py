"""p-values: signs flipped, a null of other directions, the largest of a family."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.errors import InputError
from traits.statistics.effects import named

QUANTILES = (0.5, 0.95)


def sign_flip(
    differences: xr.DataArray,
    *,
    generator: np.random.Generator,
    dim: str = "prompt",
    group: str | None = "group",
    family: Sequence[str] = (),
    repetitions: int = 10_000,
    alternative: str = "two-sided",
) -> xr.Dataset:
    """Is the mean of paired differences zero? Signs of whole groups are flipped at random.

    Rows along `dim` are first averaged within `group` (None: each row is its own), the unit of
    analysis; all other dims share the flips. Returns, over those dims: `estimate` (the mean),
    `statistic` (its t), `p` and `null_quantile` of the mean; with `family`, also `p_family`: the
    p of the largest statistic over those dims (max-t). p = (b + 1) / (B + 1), or exact over all
    2ⁿ flips where those are no more than `repetitions`. Alternatives: two-sided, greater, less.
    Raises ValueError for values that are not finite, rows without a group and fewer than 2 groups;
    where all differences are 0, the statistic is 0 and p is 1. Source: Nichols & Holmes 2002.

    >>> differences = xr.DataArray(np.arange(8.0) + 1, dims="prompt")
    >>> sign_flip(differences, generator=np.random.default_rng(0), group=None)["p"].item()
    0.0078125
    """
    # in 32 bits the flip of nothing would miss the observed mean, and p could be 0
    values, unit = in_range(_by_group(differences.astype(np.float64), dim, group), dim)
    count = values.sizes[dim]
    flips, exact = _flips(count, repetitions, generator)
    rows = values.transpose(dim, ...)
    mean = rows.mean(dim)
    flat = rows.values.reshape(count, -1)
    means = (flips @ flat).reshape(len(flips), *mean.shape) / count
    null = xr.DataArray(means, dims=("draw", *mean.dims), coords=mean.coords)
    # t = √(n − 1) r / √(1 − r²) rises with r, the mean over the root mean square, for all of a
    # family alike, and r is exact where all differences are equal and t is infinite
    square = (rows**2).mean(dim)
    root = np.sqrt(square.where(square > 0, 1.0))
    observed, drawn = mean / root, null / root
    result = against_null(observed, drawn, alternative=alternative, exact=exact)
    if family:
        result["p_family"] = max_statistic(
            observed, drawn, family, alternative=alternative, exact=exact
        )
    result = result.assign(
        estimate=mean * unit, statistic=_t(rows, dim), null_quantile=_quantiles(null) * unit
    )
    return result.assign_attrs(n=count, unit=group or dim, flips=len(flips), exact=int(exact))


def against_null(
    observed: xr.DataArray,
    null: xr.DataArray,
    *,
    draw: str = "draw",
    alternative: str = "greater",
    exact: bool = False,
) -> xr.Dataset:
    """An observed value beside its null distribution: `estimate`, `p` and `null_quantile`.

    `null` has the dim `draw` besides those of `observed`. p = (b + 1) / (B + 1), b counting the
    draws at least as extreme; with `exact` the draws are all there are, the observed one among
    them, and p = b / B. So p is above 0 and at most 1. Raises ValueError for values that are not
    finite on either side, for no draws, and for exact draws that lack the observed value.

    >>> null = xr.DataArray(np.arange(99.0), dims="draw")
    >>> against_null(xr.DataArray(97.0), null)["p"].item()
    0.03
    """
    _check_draws(observed, null, draw)
    sided = _side(alternative)
    _check_finite(observed, null, draw)
    # the same sum in another order differs in its last bits, and is a tie
    reach = sided(observed) - 1e-9 * np.abs(observed)
    beyond = (sided(null) >= reach).sum(draw)
    if exact and bool((beyond == 0).any()):
        raise InputError(
            f"exact=True was given, and the {null.sizes[draw]} draws do not hold the observed "
            "value, so they are not all there are. Leave exact out for random draws."
        )
    p = beyond / null.sizes[draw] if exact else (beyond + 1) / (null.sizes[draw] + 1)
    values = {"estimate": observed, "p": p, "null_quantile": _quantiles(null, draw)}
    return xr.Dataset(values, attrs={"draws": null.sizes[draw]})


def max_statistic(
    observed: xr.DataArray,
    null: xr.DataArray,
    family: Sequence[str],
    *,
    draw: str = "draw",
    alternative: str = "two-sided",
    exact: bool = False,
) -> xr.DataArray:
    """p-values that hold for the best of a family: each against the null's largest.

    `family` names the dims that were looked through, such as trait, layer and method; the draws
    of `null` must be joint over them. Strong control of the familywise error. Source: Westfall &
    Young 1993 (single step).

    >>> null = xr.DataArray(np.random.default_rng(0).normal(size=(99, 5)), dims=("draw", "layer"))
    >>> max_statistic(xr.DataArray([0, 0, 0, 0, 9.0], dims="layer"), null, ["layer"]).values
    array([1.  , 1.  , 1.  , 1.  , 0.01])
    """
    lacking = [dim for dim in family if dim not in observed.dims]
    if lacking:
        raise InputError(
            f"The family was said to be {tuple(family)}, and the statistic has dims "
            f"{tuple(observed.dims)}, without {lacking[0]!r}. Name dims that it has."
        )
    sided = _side(alternative)
    # a maximum would skip a NaN
    _check_finite(observed, null, draw)
    largest = sided(null).max(list(family))
    return against_null(sided(observed), largest, draw=draw, exact=exact)["p"]


def _by_group(values: xr.DataArray, dim: str, group: str | None) -> xr.DataArray:
    holes = int((~np.isfinite(values)).sum())
    if holes:
        raise InputError(
            f"{holes} of {values.size} paired differences are not finite. Drop those {dim}s."
        )
    if group is not None and len(np.unique(named(values, group))) < values.sizes[dim]:
        values = values.groupby(group).mean(dim).rename({group: dim})
    if values.sizes[dim] < 2:
        raise InputError(
            f"A permutation test needs at least 2 groups, and there are {values.sizes[dim]} "
            f"along {dim!r}. Take more prompts: tokens and samples of one are not units."
        )
    return values


def in_range(values: xr.DataArray, dim: str) -> tuple[xr.DataArray, xr.DataArray]:
    """The values over a power of two, so that no square leaves the range of a float, and it.

    >>> in_range(xr.DataArray([3e160, 1e160], dims="prompt"), "prompt")[0].values.round(2).tolist()
    [1.07, 0.36]
    """
    largest = abs(values).max(dim)
    unit = xr.where(largest > 0, 2.0 ** np.floor(np.log2(largest.where(largest > 0, 1.0))), 1.0)
    unit = unit.astype(values.dtype)
    # two steps: the reciprocal of a subnormal is infinite
    return values / unit, unit


def _flips(
    count: int, repetitions: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "flip group"], bool]:
    if 2.0**count <= repetitions:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return 1.0 - 2.0 * bits, True
    return generator.choice([-1.0, 1.0], size=(repetitions, count)), False


def _t(rows: xr.DataArray, dim: str) -> xr.DataArray:
    mean, square = rows.mean(dim), (rows**2).mean(dim)
    variance = np.maximum(((rows - mean) ** 2).mean(dim), 1e-30 * square)
    return (mean / np.sqrt(variance / (rows.sizes[dim] - 1))).where(square > 0, 0.0)


def _side(alternative: str) -> Callable[[xr.DataArray], xr.DataArray]:
    sides: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
        "two-sided": abs,
        "greater": lambda x: x,
        "less": lambda x: -x,
    }
    if alternative not in sides:
        raise InputError(
            f"The alternative {alternative!r} was asked for; there are {', '.join(sides)}."
        )
    return sides[alternative]


def _quantiles(null: xr.DataArray, draw: str = "draw") -> xr.DataArray:
    """Over `level`: the share of the draws below (xarray's own name is also its method's)."""
    return null.quantile(list(QUANTILES), draw).rename(quantile="level")


def _check_finite(observed: xr.DataArray, null: xr.DataArray, draw: str) -> None:
    wrong = [int((~np.isfinite(values)).sum()) for values in (observed, null)]
    if any(wrong) or not null.sizes[draw]:
        raise InputError(
            f"A p-value was asked for, and {wrong[0]} of {observed.size} observed values and "
            f"{wrong[1]} of {null.size} values of {null.sizes[draw]} draws are not finite: a NaN "
            "would pass for the most extreme of all. Leave out what has no value, and say so."
        )


def _check_draws(observed: xr.DataArray, null: xr.DataArray, draw: str) -> None:
    if draw not in null.dims or not set(null.dims) <= {draw, *observed.dims}:
        raise InputError(
            f"A null distribution needs the dim {draw!r} and at most those of the observed value, "
            f"{tuple(observed.dims)}; it has {tuple(null.dims)}. Draw it for the same labels."
        )
