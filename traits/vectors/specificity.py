"""Is it this trait alone? Vectors freed of one another, and how far the own set stands out."""

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from traits.vectors.extraction import unit

LEAST = 1e-4  # of a unit vector's length; what is left below it is rounding


def orthogonal(vectors: xr.DataArray, axes: xr.DataArray | None = None) -> xr.DataArray:
    """Each trait's unit vector without what the other traits' vectors, and `axes`, span.

    `vectors` has (trait, layer, dim) and any other dims, `axes` (axis, layer, dim): directions
    that every trait is freed of, such as one of pleasantness. The result is like `vectors`, each
    at a right angle to every other trait's vector as it was given. Raises ValueError for layers
    of `axes` that differ, and for a vector of which nothing is left.

    >>> given = xr.DataArray([[[1.0, 1.0]], [[0.0, 2.0]]], dims=("trait", "layer", "dim"))
    >>> orthogonal(given).values.round(3).tolist()
    [[[1.0, 0.0]], [[-0.707, 0.707]]]
    """
    inputs, core = [vectors], [["trait", "dim"]]
    if axes is not None:
        inputs, core = [vectors, axes], [*core, ["axis", "dim"]]
    made = xr.apply_ufunc(
        _freed,
        *inputs,
        input_core_dims=core,
        output_core_dims=[["trait", "dim"]],
        join="exact",
        vectorize=True,
    )
    return made.transpose(*vectors.dims).astype(vectors.dtype)


def specificity(areas: xr.DataArray) -> xr.DataArray:
    """How much better a trait's vector tells its own set than any other trait's: over `trait`.

    `areas` are AUROCs (trait, set), as `transfer` gives them, of which the sets that are traits
    count. Another set is told as well by the wrong order as by the right one: the largest of
    max(a, 1 − a) over the other traits' sets is taken from the own AUROC. Raises ValueError for
    a trait without its own set, and where there is no other.

    >>> names = {"trait": ["a", "b"], "set": ["a", "b"]}
    >>> areas = xr.DataArray([[0.9, 0.2], [0.5, 0.7]], dims=("trait", "set"), coords=names)
    >>> specificity(areas).values.round(2).tolist()
    [0.1, 0.2]
    """
    names = areas["trait"].values
    lacking = sorted(set(names.tolist()) - set(areas["set"].values.tolist()))
    if lacking or len(names) < 2:
        raise InputError(
            f"The specificity of {len(names)} traits was asked for, beside each other and each on "
            f"its own set; without one: {', '.join(lacking) or 'none'}. Give two traits or more, "
            "and the areas on the sets of all."
        )
    square = areas.sel(set=names)
    own = xr.DataArray(np.eye(len(names), dtype=bool), dims=("trait", "set"))
    others = np.maximum(square, 1 - square).where(~own)
    return square.where(own).max("set") - others.max("set")


def _freed(vectors: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    directions = unit(vectors.astype(np.float64))
    left = np.empty_like(directions)
    for n, direction in enumerate(directions):
        others = np.delete(directions, n, axis=0)
        others = others if axes is None else np.concatenate([others, unit(axes.astype(float))])
        span = np.linalg.svd(others.T, full_matrices=False)
        basis = span[0][:, span[1] > LEAST]
        left[n] = direction - basis @ (basis.T @ direction)
    empty = np.flatnonzero(np.linalg.norm(left, axis=-1) < LEAST).tolist()
    if empty:
        raise InputError(
            f"Vectors at a right angle to the others were asked for, and the others span {empty} "
            f"(their places of {len(directions)}) whole. Leave out a trait that another repeats."
        )
    return unit(left)
