"""Arrays on disk: netCDF that stock xarray reads, captures as folders of shards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr

from tracekit import shard
from tracekit.chunks import Chunks, decodable
from tracekit.folder import Folder

DIMS = ("prompt", "token", "layer", "dim", "trait", "method", "arm")
EAGER_BYTES = 1 << 28


def save(
    array: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    compression: str = shard.DEFAULT_CODEC,
) -> Path:
    """Write one netCDF file, whole or not at all; floats as float32, holes as NaN.

    `compression="zlib"` is for readers without HDF5 plugins; `"none"` is faster and twice the
    size. Returns the path.

    Errors: `TypeError` for a dtype that netCDF cannot hold, `ValueError` for an unknown
    compression or an array without provenance, `IsADirectoryError` for a folder.

    >>> save(traces, "runs/traces.nc")
    PosixPath('runs/traces.nc')
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; save writes one file, such as x.nc.")
    shard.require_codec(compression)
    if isinstance(array, xr.DataArray):
        name = str(array.name or "values")
        # the array's own attributes are the file's: a dataset would keep them on the variable
        array = array.to_dataset(name=name, promote_attrs=True)
    _require_provenance(array.attrs, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(storable(array), path, compression)
    return path


def open(
    path: str | os.PathLike[str], *, layers: Sequence[int] | None = None, partial: bool = False
) -> Any:
    """What `save` or `capture` wrote, checked once: a DataArray (one variable) or a Dataset.

    A file up to 256 MB is read at once; a larger one, and a capture's folder, stay on disk and
    are read as they are needed, layer by layer (dask). `layers` keeps those alone. `partial=True`
    also opens a capture that has not finished.

    Errors: `FileNotFoundError`; `ValueError` for a file that tracekit did not write, a shard that
    is missing, truncated or edited (named), an unfinished capture, and layers it does not have.

    >>> open("traces/organism").sel(layer=50).dims
    ('prompt', 'token', 'dim')
    """
    path = Path(path)
    if path.is_dir():
        dataset = open_shards(Folder(path).verify(partial))
    elif path.is_file():
        dataset = _open_file(path)
    else:
        raise FileNotFoundError(
            f"{str(path)!r} was asked for and does not exist. Give a file or a capture's folder."
        )
    _require_provenance(dataset.attrs, path)
    if layers is None:
        return _single(dataset)
    _require_layers(dataset, layers, path)
    return _single(dataset.sel(layer=list(layers)))


def _open_file(path: Path) -> xr.Dataset:
    lazy = path.stat().st_size > EAGER_BYTES
    try:
        chunks = _chunks_of(path) if lazy else None
        dataset = xr.open_dataset(path, engine="netcdf4", chunks=chunks)
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} is not a readable netCDF file: {error}. It may be truncated or of "
            "another kind; make it again."
        ) from error
    if lazy:
        return dataset
    with dataset:
        return dataset.load()


def _require_layers(dataset: xr.Dataset, layers: Sequence[int], path: Path) -> None:
    there = np.atleast_1d(dataset["layer"].values).tolist() if "layer" in dataset.coords else []
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise ValueError(
            f"Layers {missing} of {str(path)!r} were asked for; it has {there or 'no layers'}. "
            "Choose among those, or capture again."
        )


def open_shards(paths: Sequence[Path]) -> xr.Dataset:
    """Shards as one lazy Dataset along `prompt`, a chunk a shard and layer; labels are read."""
    chunks = _chunks_of(paths[0])
    whole = xr.concat(
        [_open_shard(path, chunks) for path in paths],
        "prompt",
        data_vars="minimal",
        coords="minimal",
        compat="equals",
        combine_attrs="override",
    )
    return whole.assign_coords({dim: whole[dim] for dim in whole.dims if dim in whole.coords})


def _open_shard(path: Path, chunks: Mapping[Any, int]) -> xr.Dataset:
    # the indexes of all shards together are made once, and not one a shard
    dataset = xr.open_dataset(path, engine="netcdf4", create_default_indexes=False)
    for name in dataset.coords:
        dataset.variables[name].load()
    token = f"{path.resolve()}:{path.stat().st_mtime_ns}"
    values = {
        name: _beside(path, variable, chunks, token)
        if decodable(path, str(name))
        else variable.chunk(chunks, token=token)
        for name, variable in dataset.data_vars.items()
    }
    return dataset.assign(values)


def _beside(
    path: Path, variable: xr.DataArray, chunks: Mapping[Any, int], token: str
) -> xr.Variable:
    sizes = tuple(chunks[dim] for dim in variable.dims)
    lazy = dask.array.from_array(
        Chunks(path, str(variable.name)),
        sizes,
        name=f"{variable.name}-{token}",
        fancy=False,
        meta=np.empty((0,) * variable.ndim, variable.dtype),
    )
    return xr.Variable(variable.dims, lazy, variable.attrs)


def _chunks_of(path: Path) -> dict[Any, int]:
    """As many layers at a time as lie together in the file."""
    with xr.open_dataset(path) as sample:
        found = dict.fromkeys(sample.dims, -1)
        for variable in sample.data_vars.values():
            stored = variable.encoding.get("chunksizes") or variable.shape
            found |= {d: n for d, n in zip(variable.dims, stored, strict=True) if d == "layer"}
    return found


def _write(dataset: xr.Dataset, path: Path, compression: str) -> None:
    part = shard.part_of(path)
    try:
        dataset.to_netcdf(part, engine="netcdf4", encoding=shard.encodings(dataset, compression))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        # HDF5 reports a full disk as "NetCDF: HDF error"
        if shutil.disk_usage(path.parent).free >= dataset.nbytes:
            raise
        raise shard.disk_full(path, dataset.nbytes) from error
    finally:
        part.unlink(missing_ok=True)


def _single(dataset: xr.Dataset) -> xr.DataArray | xr.Dataset:
    if len(dataset.data_vars) != 1:
        return dataset
    (name,) = dataset.data_vars
    array = dataset[name]
    return array.assign_attrs({**dataset.attrs, **array.attrs})


def _require_provenance(attrs: Mapping[Any, Any], path: Path) -> None:
    if "provenance" not in attrs:
        raise ValueError(
            f"{str(path)!r}: no provenance among the attributes ({sorted(map(str, attrs))}), so "
            "tracekit did not make this. Read it with xarray.open_dataset, or stamp the array."
        )


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset as netCDF can hold it: strings as fixed-width text, no encoding of old files.

    Errors: `TypeError` naming each variable of a dtype that netCDF cannot hold.
    """
    dataset = dataset.drop_encoding()
    texts = {
        name: v.astype(np.str_)
        for name, v in dataset.variables.items()
        if v.dtype.kind in "OT" and all(isinstance(x, str) for x in v.values.flat)
    }
    dataset = dataset.assign_coords({n: v for n, v in texts.items() if n in dataset.coords})
    dataset = dataset.assign({n: v for n, v in texts.items() if n in dataset.data_vars})
    unknown = {
        str(name): str(v.dtype)
        for name, v in dataset.variables.items()
        if v.dtype.kind not in "iufUb" or v.dtype == np.float16
    }
    if unknown:
        raise TypeError(
            f"netCDF cannot hold {', '.join(f'{n} ({d})' for n, d in unknown.items())}. "
            "Convert with .astype('float32') (or str) first."
        )
    return dataset
