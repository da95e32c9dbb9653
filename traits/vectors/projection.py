"""Traces on vectors: scalar, cosine, or in the clean model's deviations."""

import functools
import threading
from contextlib import nullcontext

import numpy as np
import xarray as xr
from threadpoolctl import ThreadpoolController

from tracekit.errors import InputError
from tracekit.storage.difference import norm
from tracekit.storage.provenance import read, source, stamp
from tracekit.storage.vector_files.vector_labels import require_site, site_of
from tracekit.transcripts.pooling import RESPONSE, Poolable, Pooling, pool
from tracekit.transcripts.selection import Tokens


def project(
    traces: xr.DataArray,
    vectors: xr.DataArray,
    kind: str = "scalar",
    clean: xr.DataArray | None = None,
    *,
    pooling: Poolable | None = None,
    tokens: Tokens = RESPONSE,
) -> xr.DataArray:
    """Projections of traces onto trait vectors, layer by layer.

    `traces` has `layer` and `dim`, `vectors` has `layer`, `dim` and any others (`trait`,
    `extraction`); the result has the dims of both without `dim`. The vectors may cover more layers
    than the traces. With a `pooling` (see `tk.Pooling`) they are one a response, over its own
    tokens or those that `tokens` says, and the attribute `pooling` records it. Units: residual
    units along the vector (scalar), -1 to 1 (cosine), or standard deviations over (prompt, token)
    of the clean model's own projection at that layer
    and trait (sd; `clean` are the clean model's traces). Dask-backed traces stay lazy; holes stay
    NaN, and a residual of zeros has no cosine (NaN). Raises ValueError when dims, layers or
    positions of `dim` do not fit, for vectors of another site or of a model of another depth or
    vocabulary (as far as both provenances know), and for vectors that are not finite, or zero for a
    cosine.

    >>> traces = xr.DataArray([[[3.0, 4.0]]], dims=("prompt", "layer", "dim"))
    >>> vectors = xr.DataArray([[[0.0, 1.0]]], dims=("trait", "layer", "dim"))
    >>> project(traces, vectors).sizes["trait"], project(traces, vectors, "cosine").item()
    (1, 0.8)
    """
    made = _projected(traces, vectors, kind, clean)
    if pooling is None:
        return made
    way = Pooling.read(pooling)
    pooled = pool(made, way, tokens=tokens).assign_attrs(pooling=str(way))
    if "provenance" not in pooled.attrs:
        return pooled
    return stamp(pooled, {**read(pooled), "pooling": str(way)})


def _projected(
    traces: xr.DataArray, vectors: xr.DataArray, kind: str, clean: xr.DataArray | None
) -> xr.DataArray:
    vectors = _fit(traces, vectors)
    length = refuse_undirected(vectors, zero=kind != "cosine")
    scalar = _dot(traces.transpose(..., "layer", "dim", missing_dims="ignore"), vectors)
    scalar = scalar.transpose(*[dim for dim in traces.dims if dim != "dim"], ...)
    scalar = _stamp(scalar, traces, vectors, kind).rename("projection")
    if kind == "scalar":
        return scalar
    if kind == "cosine":
        return as_cosine(scalar.assign_coords(norm=norm(traces).drop_attrs() * length))
    if kind == "sd":
        return in_clean_deviations(scalar, None if clean is None else project(clean, vectors))
    raise InputError(f"The kind {kind!r} was asked for; there are 'scalar', 'cosine' and 'sd'.")


def as_cosine(projections: xr.DataArray, vectors: xr.DataArray | None = None) -> xr.DataArray:
    """Scalar projections divided by the norm of the residual, the coordinate `norm`.

    For projections made inside the trace, onto unit vectors; `vectors` that are not of norm 1
    are divided out as well. Raises ValueError without `norm`, and for layers or traits that the
    vectors lack.

    >>> made = xr.DataArray([4.0], dims="prompt", coords={"norm": ("prompt", [5.0])})
    >>> as_cosine(made).item()
    0.8
    """
    if "norm" not in projections.coords:
        raise InputError(
            "A cosine needs the coordinate 'norm' (the residual's norm), and the projections have "
            f"{sorted(map(str, projections.coords))}. Project the traces with kind='cosine', or "
            "capture with vectors=."
        )
    length = projections["norm"]
    if vectors is not None:
        length = length * refuse_undirected(_matching(projections, vectors))
    cosine = (projections / length).assign_attrs(projections.attrs).drop_vars("norm")
    return cosine.rename("cosine")


def _matching(projections: xr.DataArray, vectors: xr.DataArray) -> xr.DataArray:
    """The vectors of these projections, in their order."""
    for dim in [dim for dim in vectors.dims if dim in projections.coords and dim in vectors.coords]:
        wanted, there = np.atleast_1d(projections[dim].values), vectors[dim].values
        lacking = [label for label in wanted.tolist() if label not in there]
        if lacking:
            raise InputError(
                f"A cosine divides by the norm of each vector, and the vectors lack the {dim}s "
                f"{lacking[:8]} of {wanted.size} projections. Give the vectors that they were "
                "projected on."
            )
        vectors = vectors.sel({dim: projections[dim].values})
    return vectors


def in_clean_deviations(projections: xr.DataArray, clean: xr.DataArray | None) -> xr.DataArray:
    """Projections in standard deviations of the clean model's, per layer and trait.

    The deviation is over the `prompt` and `token` dims of `clean` (projections of the same
    layers and traits); nothing is subtracted. Raises ValueError when there is no `clean`, when
    its labels differ or when it does not vary.

    >>> clean = xr.DataArray([1.0, 5.0], dims="prompt")
    >>> in_clean_deviations(xr.DataArray([6.0], dims="prompt"), clean).item()
    3.0
    """
    if clean is None:
        raise InputError(
            "The kind 'sd' divides by the clean model's deviation, and clean is None. "
            "Give the clean model's traces of the same layers as clean=."
        )
    rows = [dim for dim in clean.dims if dim in ("prompt", "token")]
    deviation = clean.std(rows, skipna=True)
    if bool((~((deviation > 0) & np.isfinite(deviation))).any()):
        raise InputError(
            f"The clean projections ({dict(clean.sizes)}) do not vary over {rows} at some layer "
            "and trait. Use more clean prompts."
        )
    with xr.set_options(arithmetic_join="exact"):
        return (projections / deviation).assign_attrs(projections.attrs)


def refuse_undirected(vectors: xr.DataArray, zero: bool = False) -> xr.DataArray:
    """The norms of vectors, which all have a direction; with `zero`, a zero vector may be there.

    Raises ValueError for vectors that are not finite, or zero.

    >>> refuse_undirected(xr.DataArray([3.0, 4.0], dims="dim")).item()
    5.0
    """
    length = norm(vectors)
    finite = np.isfinite(length.values)
    right = finite if zero else finite & (length.values > 0)
    count = int((~right).sum())
    if count:
        place = dict(zip(length.dims, np.argwhere(~right)[0], strict=True))
        named = {d: length[d].values[n].item() for d, n in place.items() if d in length.coords}
        raise InputError(
            f"Of {length.size} vectors {count} are {'not finite' if zero else 'zero or not finite'}"
            f"{f' (first: {named})' if named else ''}: they have no direction. Leave them out, or "
            "extract them again."
        )
    return length


def require_kin(traces: xr.DataArray, vectors: xr.DataArray) -> None:
    """Refuse traces of another site, depth or vocabulary than the vectors, where both are known.

    Raises ValueError naming both.
    """
    require_site(vectors, site_of(traces))
    both = [source(array) or {} for array in (traces, vectors)]
    for name in ("depth", "vocabulary"):
        theirs, own = (made.get(name) for made in both)
        if None not in (theirs, own) and theirs != own:
            raise InputError(
                f"The traces are of {both[0].get('model')} with the {name} {theirs!r}, and the "
                f"vectors of {both[1].get('model')} with {own!r}: their layers or tokens do not "
                "correspond. Extract vectors from such a model."
            )


def _dot(traces: xr.DataArray, vectors: xr.DataArray) -> xr.DataArray:
    columns = [dim for dim in vectors.dims if dim not in traces.dims]
    if set(vectors.dims) - set(columns) != {"layer", "dim"}:
        return xr.dot(traces, vectors, dim="dim")
    # layer by layer through BLAS: an einsum over all has the layer as a batch, and takes longer
    made = xr.apply_ufunc(
        _by_layer,
        traces,
        vectors,
        input_core_dims=[["dim"], [*columns, "dim"]],
        output_core_dims=[columns],
        dask="parallelized",
        output_dtypes=[np.result_type(traces.dtype, vectors.dtype)],
        join="exact",
    )
    return made.rename(traces.name)


def _by_layer(traces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(…, layer, dim) and (layer, …, dim) to (…, layer, …)."""
    flat = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    # dask's threads beside one another: a team of BLAS threads each takes 1.7 times as long
    alone = threading.current_thread() is threading.main_thread()
    with nullcontext() if alone else _blas().limit(limits=1, user_api="blas"):
        layers = [traces[..., n, :] @ flat[n].T for n in range(len(flat))]
    return np.stack(layers, -2).reshape(*traces.shape[:-1], *vectors.shape[1:-1])


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _stamp(
    made: xr.DataArray, traces: xr.DataArray, vectors: xr.DataArray, kind: str
) -> xr.DataArray:
    made.attrs = {}
    if "provenance" not in traces.attrs:
        return made
    of = read(vectors) if "provenance" in vectors.attrs else None
    # the fields of the traces stay on top, where tracekit.difference compares them
    return stamp(made, {**read(traces), "projection": kind, "vectors": of})


def _fit(traces: xr.DataArray, vectors: xr.DataArray) -> xr.DataArray:
    for name, array in (("traces", traces), ("vectors", vectors)):
        if "dim" not in array.dims:
            raise InputError(
                f"A projection needs the dim 'dim', and the {name} have {tuple(array.dims)}. "
                "Projections made inside the trace are already projected."
            )
    sizes = traces.sizes["dim"], vectors.sizes["dim"]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"The traces have dim {sizes[0]} and the vectors have dim {sizes[1]}: they come from "
            "models of different width. Extract vectors from a model of this width."
        )
    require_kin(traces, vectors)
    vectors = _same_layers(traces, vectors)
    if "dim" in traces.coords and "dim" in vectors.coords:
        xr.align(traces["dim"], vectors["dim"], join="exact")
    return vectors


def _same_layers(traces: xr.DataArray, vectors: xr.DataArray) -> xr.DataArray:
    if "layer" not in vectors.coords and "layer" not in vectors.dims:
        return vectors
    if not all("layer" in array.coords for array in (traces, vectors)):
        sizes = [array.sizes.get("layer") for array in (traces, vectors)]
        unlabelled = not any("layer" in array.coords for array in (traces, vectors))
        if unlabelled and sizes[0] == sizes[1]:
            return vectors
        raise InputError(
            f"Layers are matched by the coordinate 'layer': the traces have {_layers(traces)}, "
            f"the vectors have {_layers(vectors)}. Label both."
        )
    wanted, found = np.atleast_1d(traces["layer"].values), np.atleast_1d(vectors["layer"].values)
    missing = sorted(set(wanted.tolist()) - set(found.tolist()))
    if missing:
        raise InputError(
            f"The traces have layers {_layers(traces)} and the vectors have {_layers(vectors)}: "
            f"no vector for {missing[:8]}. Extract those layers, or select traces.sel(layer=…)."
        )
    return vectors.sel(layer=traces["layer"].values) if "layer" in vectors.dims else vectors


def _layers(array: xr.DataArray) -> str:
    if "layer" not in array.coords:
        return f"no labels over dims {tuple(map(str, array.dims))}"
    layers = np.atleast_1d(array["layer"].values).tolist()
    return f"{layers[0]}…{layers[-1]} ({len(layers)})" if len(layers) > 4 else str(layers)
