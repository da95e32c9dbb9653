"""Is it this trait alone? Every vector on every contrast set, and each beside the others."""

from collections.abc import Mapping

import xarray as xr

from tracekit.errors import InputError
from traits.statistics import paired_auroc
from traits.vectors.pairing import joined, pairs
from traits.vectors.projection import project, refuse_undirected


def transfer(
    vectors: xr.DataArray, sets: Mapping[str, xr.DataArray], kind: str = "scalar"
) -> xr.DataArray:
    """The AUROC of every vector on every contrast set: is it *this* trait that it found?

    `vectors` has (trait, …, layer, dim), fitted on other pairs than those in `sets`, which maps a
    name to contrast traces (of the report part, of a placebo, of chats). Returns `vectors`' dims
    without `dim`, and `set`. A trait of its own has a high diagonal and 0.5 elsewhere.

    >>> rows = {"label": ("prompt", [1, 0]), "group": ("prompt", ["a/0", "a/0"])}
    >>> traces = xr.DataArray([[[2.0]], [[1.0]]], dims=("prompt", "layer", "dim"), coords=rows)
    >>> vectors = xr.DataArray([[[1.0]], [[-1.0]]], dims=("trait", "layer", "dim"))
    >>> transfer(vectors, {"a": traces}).squeeze().values.tolist()
    [1.0, 0.0]
    """
    areas = []
    for traces in sets.values():
        positive, negative = (project(side, vectors, kind) for side in pairs(traces))
        areas.append(paired_auroc(positive, negative))
    made = joined(areas, "set", sets)
    return made.transpose(*[dim for dim in vectors.dims if dim != "dim"], "set").rename("auroc")


def agreement(vectors: xr.DataArray, over: str = "extraction") -> xr.DataArray:
    """The cosine of every vector with every other along one dim, `over` by `<over>_other`.

    >>> vectors = xr.DataArray(np.eye(2), dims=("extraction", "dim"))
    >>> agreement(vectors).values.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if over not in vectors.dims:
        raise InputError(
            f"The agreement over {over!r} was asked for, and the vectors have dims "
            f"{tuple(vectors.dims)}. Name one of these."
        )
    directions = vectors / refuse_undirected(vectors)
    other = directions.rename({over: f"{over}_other"})
    made = xr.dot(directions, other, dim="dim")
    return made.transpose(over, f"{over}_other", ...).rename("cosine")
