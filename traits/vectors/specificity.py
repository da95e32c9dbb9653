"""Is it this trait alone? Vectors freed of one another, and how far the own set stands out."""

import numpy as np
import xarray as xr
from jaxtyping import Float

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
    >>> bool(abs(orthogonal(given)[0, 0] @ given[1, 0]) < 1e-9)
    True
    """
    none = xr.DataArray(np.empty((0, vectors.sizes["dim"])), dims=("axis", "dim"))
    made = xr.apply_ufunc(
        freed,
        vectors,
        none if axes is None else axes,
        input_core_dims=[["trait", "dim"], ["axis", "dim"]],
        output_core_dims=[["trait", "dim"]],
        join="exact",
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
    others = (abs(square - 0.5) + 0.5).where(~own)
    return square.where(own).max("set") - others.max("set")


def freed(
    vectors: Float[np.ndarray, "*any trait dim"], axes: Float[np.ndarray, "*more axis dim"]
) -> Float[np.ndarray, "*any trait dim"]:
    """`orthogonal` on arrays; `axes` may have none.

    >>> vectors = freed(np.array([[1.0, 1.0], [0.0, 2.0]]), np.empty((0, 2)))
    >>> bool(abs(vectors[0] @ [0.0, 2.0]) < 1e-9)
    True
    """
    count = vectors.shape[-2]
    axes = np.broadcast_to(axes, (*vectors.shape[:-2], *axes.shape[-2:]))
    both = unit(np.concatenate([vectors, axes], axis=-2).astype(np.float64))
    # the dual basis: row n of it is at a right angle to all rows but the n-th
    size, basis = np.linalg.eigh(both @ np.swapaxes(both, -1, -2))
    inverse = (basis / np.maximum(size, LEAST**4)[..., None, :]) @ np.swapaxes(basis, -1, -2)
    left = np.diagonal(inverse, axis1=-2, axis2=-1)[..., :count] ** -0.5
    empty = sorted(set(np.argwhere(left < LEAST)[:, -1].tolist()))
    if empty:
        raise InputError(
            f"Vectors at a right angle to the others were asked for, and of {count} the others "
            f"span those at {empty} whole. Leave out a trait that another repeats."
        )
    return unit(inverse[..., :count, :] @ both)
