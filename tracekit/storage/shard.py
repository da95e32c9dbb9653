"""One shard of a capture: a netCDF file made in memory, its values compressed beside HDF5."""

from __future__ import annotations

import errno
import itertools
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import netCDF4
import numpy as np
import xarray as xr
from numcodecs import blosc
from xarray.backends import NetCDF4DataStore
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from tracekit.errors import InputError
from tracekit.storage.dictionary import about, described
from tracekit.storage.files import sha256, whole
from tracekit.storage.seal import seal

Corner = tuple[int, ...]
CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "zlib": {"compression": "zlib", "complevel": 1, "shuffle": True},
    "blosc_zstd": {"compression": "blosc_zstd", "complevel": 1, "blosc_shuffle": 1},
    "blosc_lz4": {"compression": "blosc_lz4", "complevel": 1, "blosc_shuffle": 2},
}
# of captures, which are written while a GPU waits; of what any reader should open
DEFAULT_CODEC, PORTABLE_CODEC = "blosc_zstd", "zlib"
SAYS = (
    "blosc (HDF5 filter 32001): read by tracekit, Python's netCDF4 and readers with a blosc "
    "plugin; `tracekit portable` rewrites it for any reader"
)
# values; a smaller chunk costs more to find than to read
TINY_CHUNK = 1 << 14
SAMPLE = 1 << 16
# netCDF gives blosc blocks of 32 kB; these shrink more, and are written and read 3 times as fast
BLOCK = 1 << 20


def require_codec(compression: str) -> None:
    """Errors: `ValueError` for a compression that is not among `CODECS`."""
    if compression not in CODECS:
        raise InputError(
            f"compression={compression!r} was asked for; there are {', '.join(CODECS)}."
        )


def commit(
    content: bytes | memoryview, path: Path, values: Packed | None = None, spent: float = 0.0
) -> dict[str, Any]:
    """A finished netCDF file under its name, whole or not at all; its size, mtime and sha256.

    `content` is the file, `values` are chunks that are still to go into it. Also who wrote it, in
    how many seconds, with those that it took to make (`spent`).

    Errors: `OSError` for a disk that is full.
    """
    begun = time.perf_counter()
    needed = len(content) + (values.bound if values else 0)
    with whole(path, needed) as part:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            # a full disk must not fail inside HDF5, which cannot close the file then
            if values:
                _reserve(file, needed)
        if values:
            values.write(part)
        seal(part, {values.variable: values.packed} if values else None)
        about_it = record_of(part)
    seconds = round(spent + time.perf_counter() - begun, 3)
    return {**about_it, "file": path.name, "seconds": seconds}


def record_of(path: Path) -> dict[str, Any]:
    """What a folder's log says of a finished file."""
    state = path.stat()
    sizes = {"size": state.st_size, "mtime": state.st_mtime_ns}
    return {"file": path.name, **sizes, "sha256": sha256(path), "writer": os.getpid()}


def _reserve(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(Path(file.name).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def encodings(dataset: xr.Dataset, compression: str) -> dict[str, dict[str, Any]]:
    """How each variable is stored: floats in chunks of a prompt and a layer, strings as text."""
    made: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "U":
            made[str(name)] = {"dtype": "S1"}
        elif name in dataset.data_vars and variable.dtype.kind == "f" and variable.size:
            chunks = chunk_sizes(dict(variable.sizes))
            lazy = variable.chunks is not None
            safe = not lazy and shrinks(variable.values, math.prod(chunks))
            made[str(name)] = {**codec(compression, safe), "_FillValue": None}
            if variable.ndim:
                made[str(name)]["chunksizes"] = chunks
        elif variable.dtype.kind in "iu":
            made[str(name)] = {"_FillValue": None}
    return made


def labelled(dataset: xr.Dataset, compression: str) -> xr.Dataset:
    """What a file says of itself: each variable's meaning, and a codec that not all can read."""
    dataset = described(dataset)
    dataset.attrs.pop("codec", None)
    if compression.startswith("blosc"):
        dataset.attrs["codec"] = SAYS
    return dataset


def chunk_sizes(sizes: Mapping[Any, int]) -> tuple[int, ...]:
    """One prompt and one layer a chunk, so that this is one read; more layers where it is tiny."""
    one = math.prod(n for dim, n in sizes.items() if dim not in ("prompt", "layer"))
    layers = min(max(TINY_CHUNK // max(one, 1), 1), sizes.get("layer", 1))
    few = {"prompt": 1, "layer": layers}
    return tuple(few.get(str(dim), n) for dim, n in sizes.items())


def codec(compression: str, shrinking: bool) -> dict[str, Any]:
    """The settings of a compression: zlib in the place of blosc for data that may not shrink."""
    return CODECS["zlib" if compression.startswith("blosc") and not shrinking else compression]


def shrinks(values: np.ndarray, chunk: int) -> bool:
    """Whether blosc is sure to make every chunk of `chunk` values smaller.

    netCDF's blosc filter crashes the process where it does not (netCDF4 1.7.5: "Buffer is
    uncompressible"). Values of 16-bit origin shrink; others if their highest bytes (sign and
    exponent) vary so little that the entropy of all bytes, the rest taken as noise, is below 7.75
    bits of 8. A sample is looked at.
    """
    if chunk < TINY_CHUNK:
        return False
    if values.dtype != np.float32:
        return values.dtype in (np.uint16, np.float16)
    flat = np.ascontiguousarray(values).view(np.uint32).reshape(-1)
    bits = flat[:: max(len(flat) // SAMPLE, 1)]
    if not np.any(bits & np.uint32(0xFFFF)):
        return True
    top = np.bincount(bits >> np.uint32(24), minlength=256) / len(bits)
    mixed = 0.75 / 256 + 0.25 * top
    return float(-(mixed * np.log2(mixed)).sum()) < 7.75


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of each float32 (ties to even), still as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = (bits + half) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Values as they left the device (16-bit as integers) to float32."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.view(dtype).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Job:
    """One shard to write: labels, and per layer the values as they left the device.

    The values are (kept token or row, …), the kept tokens in the order of the labels, and then
    what follows `layer` among the dims.
    """

    path: Path
    frame: xr.Dataset
    name: str
    dims: tuple[str, ...]
    raw: tuple[np.ndarray, ...]
    dtype: str
    compression: str
    round_to: str | None

    @property
    def codec(self) -> str:
        """zstd where 16 bits of 32 are zeros; else lz4, 4 times as fast for 3 % more bytes."""
        full = self.dtype == "float32" and not self.round_to
        return "blosc_lz4" if full and self.compression == "blosc_zstd" else self.compression


@dataclass(frozen=True)
class Packed:
    """A variable's compressed chunks, by the place of their first value."""

    variable: str
    packed: Mapping[Corner, bytes]

    @property
    def bound(self) -> int:
        """The most bytes that they and their index add to a file."""
        return sum(map(len, self.packed.values())) + 256 * len(self.packed) + 8192

    def write(self, path: Path) -> None:
        """Put them into a netCDF file whose variable has no values yet."""
        with h5py.File(path, "r+", locking=False) as file:
            variable = file[self.variable].id
            for corner, chunk in self.packed.items():
                variable.write_direct_chunk(corner, chunk)


def finish(job: Job, threads: int = 1) -> dict[str, Any]:
    """Write a job's file; what `commit` returns."""
    begun = time.perf_counter()
    content, values = build(job, threads)
    return commit(content, job.path, values, time.perf_counter() - begun)


def build(job: Job, threads: int = 1) -> tuple[memoryview, Packed | None]:
    """A job's netCDF file in memory, its compressed values apart where blosc makes them.

    Values go in a prompt at a time (`threads` of them side by side), so that no float32 copy of
    the whole is ever held. Blosc's chunks are made here, outside HDF5's lock, and in blocks of a
    size that netCDF cannot set.
    """
    inner = job.raw[0].shape[1:]
    last = job.dims[len(job.dims) - len(inner) :]
    sizes = dict(job.frame.sizes) | dict(zip(last, inner, strict=True))
    chunks = chunk_sizes({dim: sizes[dim] for dim in job.dims})
    apart = job.codec.startswith("blosc")
    # the library is not for several threads at a time; xarray's readers hold the same lock
    with NETCDF4_PYTHON_LOCK:
        file = netCDF4.Dataset(job.path.name, "w", memory=1 << 20)
        labels = encodings(job.frame, job.compression)
        frame = labelled(job.frame, job.compression)
        frame.dump_to_store(NetCDF4DataStore(file, lock=False), encoding=labels)
        variable = file.createVariable(
            job.name, "f4", job.dims, chunksizes=chunks, fill_value=False, **CODECS[job.codec]
        )
        variable.set_auto_maskandscale(False)
        variable.setncatts(about(job.name))
        for row in range(0 if apart else sizes["prompt"]):
            variable[row] = _block(job, row)
        content = file.close()
    return content, _with_blosc(job, chunks, threads) if apart else None


def _with_blosc(job: Job, chunks: tuple[int, ...], threads: int) -> Packed:
    name, *how = CODECS[job.codec].values()
    settings = (name.removeprefix("blosc_").encode(), *how, BLOCK)

    def packed(row: int) -> list[tuple[Corner, bytes]]:
        return [
            ((row, *corner), blosc.compress(chunk, *settings))
            for corner, chunk in split(_block(job, row), chunks[1:])
        ]

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(packed, range(job.frame.sizes["prompt"]))
        return Packed(job.name, dict(itertools.chain.from_iterable(found)))


def split(block: np.ndarray, chunk: Corner) -> Iterator[tuple[Corner, np.ndarray]]:
    """The pieces of an array in chunks, with the corner of each; those at the end are filled up.

    >>> [(corner, piece.tolist()) for corner, piece in split(np.arange(3), (2,))]
    [((0,), [0, 1]), ((2,), [2, 0])]
    """
    starts = [range(0, n, size) for n, size in zip(block.shape, chunk, strict=True)]
    for corner in itertools.product(*starts):
        piece = block[tuple(slice(at, at + n) for at, n in zip(corner, chunk, strict=True))]
        if piece.shape != chunk:
            whole = np.zeros(chunk, block.dtype)
            whole[tuple(map(slice, piece.shape))] = piece
            piece = whole
        yield corner, np.ascontiguousarray(piece)


def _block(job: Job, row: int) -> np.ndarray:
    """A prompt's values, float32: (token, layer, …) with NaN in holes, or (layer, …)."""
    if "token_id" not in job.frame:
        block = np.stack([widen(layer[row], job.dtype) for layer in job.raw])
    else:
        where = job.frame["token_id"].values >= 0
        start, stop = int(where[:row].sum()), int(where[: row + 1].sum())
        # a layer after the other, as the chunks lie
        shape = (len(job.raw), where.shape[1], *job.raw[0].shape[1:])
        filled = np.full(shape, np.nan, np.float32)
        for n, layer in enumerate(job.raw):
            filled[n, where[row]] = widen(layer[start:stop], job.dtype)
        # what has no layers has one value a token
        block = filled.swapaxes(0, 1) if len(job.dims) > 2 else filled[0]
    return round_to_bfloat16(block) if job.round_to == "bfloat16" else block
