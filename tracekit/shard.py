"""Write one netCDF file, whole or not at all. Run as a script it is a writer process.

Writer processes exist because HDF5 holds one lock a process; they run this file alone, so that
they neither import torch nor run the user's script again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "zlib": {"compression": "zlib", "complevel": 1, "shuffle": True},
    "blosc_lz4": {"compression": "blosc_lz4", "complevel": 1, "blosc_shuffle": 1},
    "blosc_zstd": {"compression": "blosc_zstd", "complevel": 1, "blosc_shuffle": 1},
}


def write(dataset: xr.Dataset, path: Path, compression: str) -> dict[str, Any]:
    """Write under a temporary name, then rename; the file's size, mtime and sha256."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        dataset.to_netcdf(part, engine="netcdf4", encoding=encodings(dataset, compression))
        hashed = sha256(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    state = path.stat()
    return {"file": path.name, "size": state.st_size, "mtime": state.st_mtime_ns, "sha256": hashed}


def encodings(dataset: xr.Dataset, compression: str) -> dict[str, dict[str, Any]]:
    """Chunks of one prompt and one layer for the values; strings as compressed characters."""
    made: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "U":
            made[str(name)] = {"dtype": "S1"}
        elif name in dataset.data_vars and variable.dtype.kind == "f" and variable.size:
            sizes = [1 if dim in ("prompt", "layer") else n for dim, n in variable.sizes.items()]
            made[str(name)] = {**CODECS[compression], "_FillValue": None}
            if variable.ndim:
                made[str(name)]["chunksizes"] = tuple(sizes)
        elif variable.dtype.kind in "iu":
            made[str(name)] = {"_FillValue": None}
    return made


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each float32 (ties to even), still as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Values as they left the device (16-bit as integers) to float32."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.view(dtype).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Job:
    """One shard to write: labels, and the values of its real tokens as they left the device."""

    path: Path
    frame: xr.Dataset
    name: str
    dims: tuple[str, ...]
    attrs: dict[str, str]
    raw: np.ndarray
    dtype: str
    compression: str
    round_to: str | None


def finish(job: Job) -> dict[str, Any]:
    """Place the values among the labels (NaN in holes), round if asked, and write."""
    values = widen(job.raw, job.dtype)
    if "token" in job.dims:
        where = job.frame["token_id"].values >= 0
        placed = np.full((*where.shape, *values.shape[1:]), np.nan, np.float32)
        placed[where] = values
        values = placed
    if job.round_to == "bfloat16":
        values = round_to_bfloat16(values)
    dataset = job.frame.assign({job.name: (job.dims, values, job.attrs)})
    return write(dataset, job.path, job.compression)


def dump(job: Job, stream: BinaryIO) -> None:
    """A job onto a pipe: a JSON line, the labels as npz, the raw values."""
    labels = io.BytesIO()
    np.savez(labels, **{str(name): c.values for name, c in job.frame.coords.items()})
    header = {
        "path": str(job.path),
        "coords": {str(name): list(c.dims) for name, c in job.frame.coords.items()},
        "frame_attrs": job.frame.attrs,
        **{key: getattr(job, key) for key in ("name", "dims", "attrs", "dtype")},
        **{key: getattr(job, key) for key in ("compression", "round_to")},
        "raw": [list(job.raw.shape), str(job.raw.dtype)],
        "bytes": labels.tell(),
    }
    stream.write(json.dumps(header).encode() + b"\n")
    stream.write(labels.getbuffer())
    stream.write(np.ascontiguousarray(job.raw).view(np.uint8).reshape(-1).data)
    stream.flush()


def parse(stream: BinaryIO) -> Job | None:
    """The next job of a pipe; `None` when the pipe was closed."""
    line = stream.readline()
    if not line:
        return None
    header = json.loads(line)
    labels = np.load(io.BytesIO(stream.read(header.pop("bytes"))))
    shape, kind = header.pop("raw")
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = np.frombuffer(stream.read(size), kind).reshape(shape)
    coords = {name: (dims, labels[name]) for name, dims in header.pop("coords").items()}
    frame = xr.Dataset(coords=coords, attrs=header.pop("frame_attrs"))
    path, dims = Path(header.pop("path")), tuple(header.pop("dims"))
    return Job(path=path, frame=frame, dims=dims, raw=raw, **header)


def _serve() -> None:
    while (job := parse(sys.stdin.buffer)) is not None:
        try:
            answer = finish(job)
        except Exception as error:  # handed to the parent, which raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
