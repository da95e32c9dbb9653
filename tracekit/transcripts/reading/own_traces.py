"""Activations of one's own as traces: an array in memory or in a file, under labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError, InputTypeError
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.labels import columns
from tracekit.transcripts.site_names import require_site
from tracekit.transcripts.tensors import require_transcripts

DIMS = {2: ("prompt", "dim"), 4: ("prompt", "token", "layer", "dim")}


def traces(
    array: Any,
    *,
    dims: Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    runs: xr.Dataset | None = None,
    prompts: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[Any]] | None = None,
    site: str = "residual",
    made_with: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """An array of activations as traces that `save`, `project`, `extract` and `steer` take.

    `array` is of numpy, torch or dask, a memmap, or an open dataset of h5py or zarr, which stays on
    disk and is read as it is needed. `dims` name its axes: (prompt, dim) for two and (prompt,
    token, layer, dim) for four; of three they have to be given. `layers` say which blocks' outputs
    the layer axis holds (0 is the first block; row 0 of hidden states is −1), one number without
    that axis. `runs` (transcripts) give all their labels; their token axis has to be the array's,
    and values in holes become NaN. Without them rows are `prompts` (ids; `given/0` … by default),
    with `labels`, a column each (`label` and `group` for `extract`). Values are floats; 16-bit ones
    become float32. `site` is one of capture's; `made_with` goes into the provenance (`weights`,
    without which `difference` compares nothing, and a `site` that none of those is).

    Errors: `ValueError` for axes without a name, layers that are not as many as the axis has, rows
    or tokens that are not those of `runs`, another site, and values that are no floats;
    `TypeError` for a path, and for a file or dict of several arrays.

    >>> given = traces(np.ones((2, 3, 8)), dims=("prompt", "layer", "dim"), layers=[10, 11, 12])
    >>> given.sel(prompt="given/1", layer=12).shape
    (8,)
    """
    own = (made_with or {}).get("site")
    if own is None:
        require_site(site, f"a place of your own by made_with={{'site': {site!r}}}")
    values = _floats(array)
    named = _named(values, dims)
    layers = int(layers) if isinstance(layers, np.integer) else layers
    coords = _layer_coords(named, values.shape, layers)
    if "dim" in named:
        coords["dim"] = np.arange(values.shape[named.index("dim")], dtype=np.int32)
    site = str(own or site)
    about: dict[str, Any] = {"made_by": "tracekit.traces", "site": site}
    if runs is None:
        coords |= _row_coords(values.shape[named.index("prompt")], prompts, labels or {})
        made = xr.DataArray(values, dims=named, coords=coords, name=site)
        return stamp(made, {**about, **(made_with or {})})
    require_transcripts(runs)
    if prompts is not None or labels:
        raise InputError("traces was given runs= and prompts= or labels=. The runs have both.")
    made = _under_runs(xr.DataArray(values, dims=named, coords=coords, name=site), runs)
    return stamp(made, {**read(runs), **about, **(made_with or {})})


def _floats(array: Any) -> Any:
    """Values as xarray takes them: in memory, or lazily where they lie in a file."""
    if isinstance(array, str | os.PathLike) or hasattr(array, "keys"):
        raise _several(array)
    if hasattr(array, "detach"):  # torch; numpy has no bfloat16
        array = array.detach().cpu()
        array = (array.float() if array.element_size() == 2 else array).numpy()
    elif isinstance(array, xr.DataArray):
        array = array.data
    elif not isinstance(array, np.ndarray) and hasattr(array, "shape"):
        import dask.array

        # h5py and zarr; a dask array is left as it is
        whole = isinstance(array, dask.array.Array)
        array = array if whole else dask.array.from_array(array, chunks=array.chunks or "auto")
    else:
        array = array if isinstance(array, np.ndarray) else np.asarray(array)
    if array.dtype.kind != "f":
        raise InputError(
            f"traces was given values of {array.dtype}, of shape {tuple(array.shape)}; activations "
            "are floats. Convert them: array.astype('float32')."
        )
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def _several(holder: Any) -> InputTypeError:
    """The error for a file, or what else has arrays by name, that says what to write."""
    import h5py

    if not isinstance(holder, str | os.PathLike):
        kind, names = f"a {type(holder).__name__}", _names(holder)
        advice = f"Give one of them: file[{names[0]!r}]." if names else "Give an array."
        return InputTypeError(
            f"traces was given {kind} with {', '.join(map(repr, names[:12])) or 'nothing'}; it "
            f"takes one array. {advice}"
        )
    found, example = "", "NAME"
    if h5py.is_hdf5(holder):
        with h5py.File(holder) as file:
            names = _names(file)
        found, example = f", which has {', '.join(map(repr, names[:12]))}", (names or ["NAME"])[0]
    return InputTypeError(
        f"traces was given the path {str(holder)!r}{found}; it takes an array. Open the file (with "
        f"h5py.File(path) as file) and give file[{example!r}], or what numpy.load gives; what "
        "tracekit saved, tk.open opens."
    )


def _names(holder: Any) -> list[str]:
    """The names of the arrays in a file, those in groups by their path."""
    names: list[str] = []
    if hasattr(holder, "visititems"):
        holder.visititems(lambda name, one: names.append(name) if hasattr(one, "shape") else None)
        return names
    return list(map(str, holder.keys()))


def _named(values: Any, dims: Sequence[str] | None) -> tuple[str, ...]:
    named = tuple(dims) if dims is not None else DIMS.get(values.ndim, ())
    if len(named) != values.ndim or len(set(named)) < len(named) or "prompt" not in named:
        raise InputError(
            f"traces was given an array of shape {tuple(values.shape)} and the dims "
            f"{named or dims}. Name each axis once, with 'prompt' among them, such as "
            "dims=('prompt', 'layer', 'dim')."
        )
    return named


def _layer_coords(
    named: Sequence[str], shape: Sequence[int], layers: int | Sequence[int] | None
) -> dict[str, Any]:
    if "layer" not in named:
        if layers is not None and not isinstance(layers, int):
            raise InputError(
                f"traces was given layers={list(layers)} and no axis of layers among {named}. Name "
                "it in dims=, or give one layer's number."
            )
        return {} if layers is None else {"layer": layers}
    count = shape[list(named).index("layer")]
    listed = None if layers is None or isinstance(layers, int) else list(layers)
    if listed is None or len(listed) != count or len(set(listed)) < count:
        raise InputError(
            f"traces was given {count} layers and layers={layers!r}; which blocks' outputs they "
            f"are cannot be told. Give each its number, such as layers=range({count}), or "
            f"range(-1, {count - 1}) where the first is the embedding."
        )
    return {"layer": np.asarray(listed, np.int32)}


def _row_coords(
    count: int, prompts: Sequence[str] | None, labels: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    names = [f"given/{n}" for n in range(count)] if prompts is None else list(map(str, prompts))
    group = list(map(str, labels.get("group", names)))
    own = {name: list(column) for name, column in labels.items() if name != "group"}
    counts = {"prompts": len(names), "group": len(group)}
    counts |= {name: len(column) for name, column in own.items()}
    wrong = {name: size for name, size in counts.items() if size != count}
    if wrong or len(set(names)) < count:
        raise InputError(
            f"traces was given {count} rows and {wrong or 'ids of which some are the same'}. "
            "Give one id, and one value of each label, for each row."
        )
    rows = [{name: own[name][n] for name in own} for n in range(count)]
    made = {name: ("prompt", column) for name, column in columns(names, rows).items()}
    return {"prompt": names, "group": ("prompt", group), **made}


def _under_runs(array: xr.DataArray, runs: xr.Dataset) -> xr.DataArray:
    """The array under the labels of its transcripts, holes as NaN."""
    for dim in ("prompt", "token"):
        if dim in array.dims and array.sizes[dim] != runs.sizes[dim]:
            raise InputError(
                f"traces was given {array.sizes[dim]} on the axis {dim!r}, and the runs have "
                f"{runs.sizes[dim]}. Give the runs that these activations are of, on their token "
                "axis (tk.label puts there what a trace of tk.inputs saved)."
            )
    along = {"prompt", "token"} & set(array.dims)
    coords = {name: coord for name, coord in runs.coords.items() if set(coord.dims) <= along}
    labelled = array.assign_coords(coords)
    if "token" not in array.dims:
        return labelled
    labelled = labelled.assign_coords(token_id=runs.token_id)
    return labelled.where(runs.token_id >= 0).transpose(*array.dims)
