"""Effects in units of their spread, and the rate of false discoveries."""

import warnings

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy import stats

from tracekit.errors import InputError


def paired_effect(differences: xr.DataArray, dim: str = "pair") -> xr.DataArray:
    """The mean of paired differences in units of their standard deviation (Cohen's d_z).

    NaN, with a warning that says how many, where the differences do not vary (all alike, or one
    pair): there is no unit to count in. Raises ValueError for differences that are not finite.

    >>> paired_effect(xr.DataArray([1.0, 2.0, 3.0], dims="pair")).item()
    2.0
    """
    effect = xr.apply_ufunc(effect_size, differences, input_core_dims=[[dim]], dask="allowed")
    alike = int(np.isnan(effect).sum())
    if alike:
        warnings.warn(
            f"The {differences.sizes[dim]} paired differences along {dim!r} do not vary at "
            f"{alike} of {effect.size} places: no effect in units of their deviation.",
            stacklevel=2,
        )
    return effect


def effect_size(
    differences: Shaped[np.ndarray, "*other pair"],
) -> Float[np.ndarray, "*other"] | np.float64:
    """`paired_effect` of a plain array along the last axis, for loops over many draws.

    NaN, without a warning, where the differences do not vary. Raises ValueError for differences
    that are not finite.

    >>> effect_size(np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]))
    array([ 2., nan])
    """
    refuse_holes(differences, "paired differences")
    values = np.asarray(differences, np.float64)
    # the effect has no unit, and squares of large numbers would leave the range of a float
    values = np.ldexp(values, -np.frexp(np.abs(values).max(-1, keepdims=True))[1])
    mean = values.mean(-1)
    spread = values.std(-1, ddof=1) if values.shape[-1] > 1 else np.zeros_like(mean)
    # equal numbers differ from their mean by a rounding
    varies = spread > 1e-12 * np.abs(values).max(-1)
    return mean / np.where(varies, spread, np.nan)


def benjamini_hochberg(p: xr.DataArray) -> xr.DataArray:
    """q-values: the false discovery rate at which each p would just be called, over all of `p`.

    Raises ValueError for p outside 0 to 1, NaN included. Source: Benjamini & Hochberg 1995.

    >>> benjamini_hochberg(xr.DataArray([0.01, 0.02, 0.5], dims="trait")).values.tolist()
    [0.03, 0.03, 0.5]
    """
    outside = int((~((p >= 0) & (p <= 1))).sum())
    if outside:
        raise InputError(
            f"{outside} of {p.size} p-values are not between 0 and 1. Leave out what could not be "
            "tested, and say so."
        )
    q = stats.false_discovery_control(p.values.ravel())
    return p.copy(data=q.reshape(p.shape)).rename("q")


def named(rows: xr.DataArray | xr.Dataset, name: str) -> np.ndarray:
    """The values of a coordinate that every row has; NaN and None would be a group of no rows.

    Errors: `ValueError` where some are missing.
    """
    missing = int(rows[name].isnull().sum())
    if missing:
        raise InputError(
            f"{missing} of {rows[name].size} rows have no {name!r} (NaN or None), so what they "
            "count as is unknown. Drop these rows, or name theirs."
        )
    return rows[name].values


def refuse_holes(values: xr.DataArray | np.ndarray, what: str) -> None:
    """Errors: `ValueError` where any of the values is not finite, or there are none."""
    holes = int((~np.isfinite(values)).sum())
    if holes or not values.size:
        raise InputError(
            f"{holes} of {values.size} {what} are not finite. Drop these rows, or average over "
            "the tokens that exist."
        )
