"""Arrays on disk: netCDF that stock xarray reads, captures as folders of shards."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit import shard

DIMS = ("prompt", "token", "layer", "dim", "trait", "method", "arm")
SETTINGS, SHARDS = "capture.json", "shards.jsonl"
EAGER_BYTES = 1 << 28


def save(
    array: xr.DataArray | xr.Dataset, path: str | os.PathLike[str], compression: str = "blosc_zstd"
) -> Path:
    """Write one netCDF file, whole or not at all; floats as float32, holes as NaN.

    `compression="zlib"` is for readers without HDF5 plugins; `"none"` and `"blosc_lz4"` are
    faster. Returns the path.

    Errors: `TypeError` for a dtype that netCDF cannot hold, `ValueError` for an unknown
    compression or an array without provenance, `IsADirectoryError` for a folder.

    >>> save(traces, "runs/traces.nc")
    PosixPath('runs/traces.nc')
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; save writes one file, such as x.nc.")
    if compression not in shard.CODECS:
        raise ValueError(
            f"compression={compression!r} was asked for; there are {', '.join(shard.CODECS)}."
        )
    if isinstance(array, xr.DataArray):
        name = str(array.name or "values")
        # the array's own attributes are the file's: a dataset would keep them on the variable
        array = array.to_dataset(name=name, promote_attrs=True)
    _require_provenance(array.attrs, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shard.write(_storable(array), path, compression)
    return path


def open(path: str | os.PathLike[str], *, partial: bool = False) -> Any:
    """What `save` or `capture` wrote, checked once: a DataArray (one variable) or a Dataset.

    A file up to 256 MB is read at once; a larger one, and a capture's folder, stay on disk and
    are read as they are needed, layer by layer (dask). `partial=True` also opens a capture that
    has not finished.

    Errors: `FileNotFoundError`; `ValueError` for a file that tracekit did not write, a shard that
    is missing, truncated or edited (named), and an unfinished capture.

    >>> open("traces/organism").sel(layer=50).dims
    ('prompt', 'token', 'dim')
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(Folder(path), partial)
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file or a capture's folder.")
    try:
        lazy = path.stat().st_size > EAGER_BYTES
        dataset = xr.open_dataset(path, engine="netcdf4", chunks={"layer": 1} if lazy else None)
    except OSError as error:
        raise ValueError(f"{str(path)!r} is not a readable netCDF file: {error}.") from error
    if not lazy:
        with dataset:
            dataset = dataset.load()
    _require_provenance(dataset.attrs, path)
    return _single(dataset)


class Folder:
    """A capture's folder: its settings, and a log of the shards that are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, settings: Mapping[str, Any], count: int) -> None:
        """Take the folder for these settings, or go on with the ones it has.

        Errors: `ValueError` when it holds another capture or anything else.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / SETTINGS).is_file():
            self._refuse_other(settings)
        else:
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if foreign:
                raise ValueError(
                    f"{str(self.path)!r} holds {', '.join(foreign[:3])} and no capture. "
                    "Give an empty or a new folder."
                )
            self._write_settings({"settings": settings, "shards": count})
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One capture at a time writes here."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"Another process is capturing into {str(self.path)!r}. Wait for it to end."
                ) from error
            yield

    def settings(self) -> dict[str, Any]:
        """The settings, and the number of shards when complete."""
        if not (self.path / SETTINGS).is_file():
            raise ValueError(
                f"The folder {str(self.path)!r} holds no capture (no {SETTINGS}). "
                "Give the folder that capture(path=…) wrote."
            )
        return json.loads((self.path / SETTINGS).read_text())

    def records(self) -> dict[str, dict[str, Any]]:
        """The complete shards, by file name, in the order of the batch plan."""
        log = self.path / SHARDS
        lines = log.read_text().split("\n")[:-1] if log.is_file() else []
        found = {record["file"]: record for record in map(json.loads, filter(None, lines))}
        return {name: found[name] for name in sorted(found) if (self.path / name).is_file()}

    def record(self, done: Mapping[str, Any]) -> None:
        """Log a complete shard."""
        log = self.path / SHARDS
        # a killed run may have left half a line
        torn = log.is_file() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")
        with log.open("a") as file:
            file.write(("\n" if torn else "") + json.dumps(done) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def verify(self) -> list[Path]:
        """The complete shards' paths, each as long and as old as when it was written.

        A shard with another date is hashed: a copied one passes, an edited one does not.
        """
        for name, record in self.records().items():
            state = (self.path / name).stat()
            same = state.st_size == record["size"] and (
                state.st_mtime_ns == record["mtime"]
                or shard.sha256(self.path / name) == record["sha256"]
            )
            if not same:
                raise ValueError(
                    f"The shard {name} of {str(self.path)!r} was truncated or edited since it was "
                    f"captured ({state.st_size:,} bytes now, {record['size']:,} then). "
                    "Delete it and run the same capture again."
                )
        return [self.path / name for name in self.records()]

    def _refuse_other(self, settings: Mapping[str, Any]) -> None:
        there = self.settings()["settings"]
        wanted = json.loads(json.dumps(settings))
        keys = sorted({*there, *wanted})
        differ = [key for key in keys if there.get(key) != wanted.get(key)]
        if differ:
            shown = "; ".join(f"{k}: {there.get(k)!r} there, {wanted.get(k)!r} now" for k in differ)
            raise ValueError(
                f"{str(self.path)!r} holds a capture with other settings ({shown}). "
                "Give another path, or delete that one."
            )

    def _write_settings(self, content: Mapping[str, Any]) -> None:
        part = self.path / f".{SETTINGS}.{os.getpid()}.part"
        part.write_text(json.dumps(content, indent=1, sort_keys=True))
        part.replace(self.path / SETTINGS)


def _open_folder(folder: Folder, partial: bool) -> xr.DataArray:
    planned, paths = folder.settings()["shards"], folder.verify()
    if len(paths) < planned and not (partial and paths):
        raise ValueError(
            f"The capture in {str(folder.path)!r} has {len(paths)} of {planned} shards. "
            "Run the same capture again to finish it, or open it with partial=True."
        )
    dataset = open_shards(paths)
    _require_provenance(dataset.attrs, folder.path)
    return _single(dataset)


def open_shards(paths: Sequence[Path]) -> xr.Dataset:
    """Shards as one lazy Dataset along `prompt`, with chunks of one layer."""
    with xr.open_dataset(paths[0]) as sample:
        chunks = {dim: 1 if dim == "layer" else -1 for dim in sample.dims}
    dataset = xr.open_mfdataset(
        [str(path) for path in paths],
        combine="nested",
        concat_dim="prompt",
        chunks=chunks,
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    # labels are small and wanted at once; only the values stay on disk
    return dataset.assign_coords({name: c.compute() for name, c in dataset.coords.items()})


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


def _storable(dataset: xr.Dataset) -> xr.Dataset:
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
