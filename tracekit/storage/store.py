"""Arrays on disk: netCDF that stock xarray reads, captures as folders of shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from tracekit.errors import InputError, InputTypeError, brief
from tracekit.storage import shard
from tracekit.storage.capture_folder import Folder
from tracekit.storage.chunk_reader import Chunks, Guarded, decodable
from tracekit.storage.dictionary import undescribed
from tracekit.storage.files import (
    READERS,
    plain,
    reading,
    refuse_other_format,
    uninterrupted,
    whole,
)
from tracekit.storage.former_names import renamed
from tracekit.storage.seal import seal, verified

EAGER_BYTES = 1 << 28


def save(
    array: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    compression: str = shard.PORTABLE_CODEC,
) -> Path:
    """Write one netCDF file, whole or not at all; holes as NaN.

    Any reader of netCDF-4 or HDF5 opens it: every variable says its `long_name` and `units`
    (docs/data_dictionary.md), and checksums of values and labels lie behind the file's end, where
    no other reader looks. `compression="none"` is faster and twice the size; `"blosc_zstd"` is as
    small and faster to write and read, for tracekit, Python's netCDF4 and readers with a plugin,
    which the file's attribute `codec` says. Returns the path.

    Errors: `TypeError` for what is no array of xarray, and for a dtype or attribute that netCDF
    cannot hold (True and false become 1 and 0),
    `ValueError` for a name of another format (.csv, .npy, …), an unknown compression or an array
    without provenance, `IsADirectoryError` for a folder.

    >>> save(traces, "runs/traces.nc")
    PosixPath('runs/traces.nc')
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; save writes one file, such as x.nc.")
    refuse_other_format(path)
    if not isinstance(array, xr.DataArray | xr.Dataset):
        raise InputTypeError(
            f"save was given {type(array).__name__}; it writes a DataArray or a Dataset, as "
            "tk.capture and tk.encode give them. Put labels on values of your own with tk.traces."
        )
    shard.require_codec(compression)
    if isinstance(array, xr.DataArray):
        name = str(array.name or "values")
        array = _promoted(array, name)
    _require_provenance(array.attrs, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(_with_attributes(storable(array)), path, compression)
    return path


def open(
    path: str | os.PathLike[str], *, layers: Sequence[int] | None = None, partial: bool = False
) -> Any:
    """What `save` or `capture` wrote, checked once: a DataArray (one variable) or a Dataset.

    Files of former versions come under today's names (`method` is `extraction`). A file up to
    256 MB is read at once; a larger one, and a capture's folder, stay on disk and
    are read as they are needed, layer by layer (dask). `layers` keeps those alone. `partial=True`
    also opens a capture that has not finished.

    Errors: `FileNotFoundError`; `ValueError` for a file that tracekit did not write (and what reads
    it, where its suffix tells), a shard that is missing, damaged, edited or of another capture
    (named), an unfinished capture, and layers it does not have. Values are compared with their
    checksums when they are read (`.load()`).

    >>> open(path).sel(layer=12).dims
    ('prompt', 'token', 'dim')
    """
    path = Path(path)
    if path.is_dir():
        dataset = _open_folder(Folder(path), partial)
    elif path.is_file():
        dataset = _open_file(path)
    else:
        raise FileNotFoundError(
            f"{str(path)!r} was asked for and does not exist. Give a file or a capture's folder."
        )
    _require_provenance(dataset.attrs, path)
    dataset = undescribed(renamed(dataset))
    if path.is_dir():
        # beside the attributes, in which a capture to a path is one into memory
        dataset.variables["prompt"].encoding["row_order"] = "batch plan"
    if layers is None:
        return _single(dataset)
    _require_layers(dataset, layers, path)
    return _single(dataset.sel(layer=list(layers)))


def _open_file(path: Path) -> xr.Dataset:
    suffix = path.suffix.lower()
    if suffix in READERS and not h5py.is_hdf5(path):
        raise InputError(
            f"{str(path)!r} is a {suffix} file and no netCDF, which is what open reads. "
            f"Read it with {READERS[suffix]}."
        )
    if path.stat().st_size > EAGER_BYTES:
        return _indexed(lazily(path))
    dataset, arrays = _opened(path)
    with uninterrupted(), dataset, reading(path):
        values = {name: _same(dataset[name], array[()]) for name, array in arrays.items()}
        return _indexed(dataset.assign(values).load())


def _require_layers(dataset: xr.Dataset, layers: Sequence[int], path: Path) -> None:
    there = np.atleast_1d(dataset["layer"].values).tolist() if "layer" in dataset.coords else []
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise InputError(
            f"Layers {missing} of {str(path)!r} were asked for; it has {there or 'no layers'}. "
            "Choose among those, or capture again."
        )


def _open_folder(folder: Folder, partial: bool) -> xr.Dataset:
    """Shards as one lazy Dataset along `prompt`, a chunk a shard and layer; labels are read."""
    shards = {path: lazily(path) for path in folder.verify(partial)}
    made = {path.name: str(dataset.attrs.get("provenance")) for path, dataset in shards.items()}
    folder.refuse_others(made)
    with reading(folder.path, "Its shards do not fit together; capture again."):
        joined = xr.concat(
            list(shards.values()),
            "prompt",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            combine_attrs="override",
        )
    folder.refuse_other_rows(joined["prompt"].values.tolist(), partial)
    return _indexed(joined)


def _indexed(dataset: xr.Dataset) -> xr.Dataset:
    # the indexes of all shards together are made once, and not one a shard
    return dataset.assign_coords({dim: dataset[dim] for dim in dataset.dims if dim in dataset})


def _opened(path: Path) -> tuple[xr.Dataset, dict[Any, Chunks]]:
    """A file whose labels are checked and read, and its values in chunks that are yet to be."""
    sums = verified(path)
    with uninterrupted(), reading(path):
        dataset = xr.open_dataset(plain(path), engine="netcdf4", create_default_indexes=False)
        for name in dataset.coords:
            dataset.variables[name].load()
        with h5py.File(path, "r", locking=False) as file:
            names = [name for name in dataset.data_vars if decodable(file[str(name)])]
        return dataset, {name: Chunks(path, str(name), sums.get(str(name))) for name in names}


def lazily(path: Path) -> xr.Dataset:
    """A file whose values are read, and compared with their checksums, as they are needed.

    >>> bool(lazily(path).chunks)
    True
    """
    # as long to import as xarray, and only what stays on disk needs it
    import dask.array

    dataset, arrays = _opened(path)
    token = f"{path.resolve()}:{path.stat().st_mtime_ns}"
    values = {}
    for name, variable in dataset.variables.items():
        if name in dataset.data_vars:
            array = arrays.get(name) or Guarded(path, variable)
            sizes = _sizes(variable)
            values[name] = _same(
                variable,
                dask.array.from_array(
                    array,
                    sizes,
                    name=f"{name}-{token}",
                    fancy=False,
                    meta=np.empty((0,) * variable.ndim, variable.dtype),
                ),
            )
    return dataset.assign(values)


def _same(variable: xr.DataArray | xr.Variable, values: Any) -> xr.Variable:
    # without fastpath xarray imports dask.array to ask whether the values are of it
    return xr.Variable(variable.dims, values, variable.attrs, fastpath=True)


def _sizes(variable: xr.Variable) -> tuple[int, ...]:
    """As many layers at a time as lie together in the file, and all of everything else."""
    stored = variable.encoding.get("chunksizes") or variable.shape
    sizes = zip(variable.dims, stored, variable.shape, strict=True)
    return tuple(chunk if dim == "layer" else size for dim, chunk, size in sizes)


def write(dataset: xr.Dataset, path: Path, compression: str) -> None:
    """A sealed file of what `storable` made, whole or not at all.

    >>> write(storable(clean.to_dataset(promote_attrs=True)), Path("x.nc"), "none")
    """
    encoding = shard.encodings(dataset, compression)
    blosc = any("blosc" in one.get("compression", "") for one in encoding.values())
    dataset = shard.labelled(dataset, "blosc" if blosc else compression)
    with whole(path, dataset.nbytes) as part:
        with uninterrupted():
            dataset.to_netcdf(plain(part), engine="netcdf4", encoding=encoding)
        seal(part)


def _promoted(array: xr.DataArray, name: str) -> xr.Dataset:
    """The array's own attributes are the file's, but for what is said of its values."""
    own = {key: array.attrs[key] for key in ("long_name", "units") if key in array.attrs}
    dataset = array.to_dataset(name=name, promote_attrs=True)
    dataset.attrs = {key: value for key, value in dataset.attrs.items() if key not in own}
    dataset[name].attrs = own
    return dataset


def _single(dataset: xr.Dataset) -> xr.DataArray | xr.Dataset:
    if len(dataset.data_vars) != 1:
        return dataset
    (name,) = dataset.data_vars
    array = dataset[name]
    return array.assign_attrs({**dataset.attrs, **array.attrs})


def _require_provenance(attrs: Mapping[Any, Any], path: Path) -> None:
    if "provenance" not in attrs:
        raise InputError(
            f"{str(path)!r}: no provenance among the attributes ({sorted(map(str, attrs))}), so "
            "tracekit did not make this. Read it with xarray.open_dataset, or stamp the array."
        )


def _with_attributes(dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.assign_attrs({n: _attribute(n, v) for n, v in dataset.attrs.items()})
    for variable in dataset.variables.values():
        variable.attrs = {n: _attribute(n, v) for n, v in variable.attrs.items()}
    return dataset


def _attribute(name: Any, value: Any) -> Any:
    kind = np.asarray(value).dtype.kind
    if kind not in "biufSU":
        raise InputTypeError(
            f"The attribute {name!r} is {brief(value)}, and netCDF holds numbers, texts and lists "
            "of one of them. Keep it as text: assign_attrs(" + f"{name}=json.dumps(…))."
        )
    return np.asarray(value).astype(np.int8) if kind == "b" else value


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
        raise InputTypeError(
            f"netCDF cannot hold {', '.join(f'{n} ({d})' for n, d in unknown.items())}. "
            "Convert with .astype('float32') (or str) first."
        )
    return dataset
