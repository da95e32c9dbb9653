"""Chunks of a file, decoded beside one another: HDF5's lock lets one thread decompress at a time.

The bytes of a chunk are fetched under the lock, which takes no time, compared with their checksum
where the file has one, and decoded outside the lock.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
import xxhash
from numcodecs import blosc
from xarray.backends import CachingFileManager

from tracekit.errors import InputError
from tracekit.storage.files import reading, unreadable

# the filters' numbers in HDF5's registry
_ZLIB, _SHUFFLE, _BLOSC = 1, 2, 32001
CHANGED = "It was damaged or edited since it was written; make it again, or copy it anew."


class Chunks:
    """A variable of a netCDF file as a lazy array: `shape`, `dtype`, and basic indexing.

    `sums` are the checksums of its chunks, in their grid.

    Errors: `ValueError` naming the file, for a chunk that is not the one that was written.

    >>> Chunks(path, "residual")[:, :, 3].shape
    (3, 10, 32)
    """

    def __init__(self, path: Path, name: str, sums: np.ndarray | None = None) -> None:
        self._path, self._name, self._sums = path, name, sums
        # as many files stay open as xarray keeps open; it also lets this be pickled
        self._files = CachingFileManager(h5py.File, path, mode="r", kwargs={"locking": False})
        variable = self._variable()
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim
        self._chunk, self._filters = variable.chunks, filters(variable)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = (key,) if not isinstance(key, tuple) else key
        key = (*key, *[slice(None)] * (self.ndim - len(key)))
        bounds = [_bounds(k, n) for k, n in zip(key, self.shape, strict=True)]
        block = np.empty([stop - start for start, stop in bounds], self.dtype)
        with reading(self._path):
            for corner in _corners(bounds, self._chunk):
                self._read(corner, bounds, block)
        # the bounds are tight, so that a slice is all of them in its steps
        rest = tuple(slice(None, None, k.step) if isinstance(k, slice) else 0 for k in key)
        return np.asarray(block[rest])

    def _read(
        self, corner: tuple[int, ...], bounds: list[tuple[int, int]], block: np.ndarray
    ) -> None:
        skipped, packed = self._variable().id.read_direct_chunk(corner)
        if self._sums is not None:
            self._refuse_changed(corner, packed)
        source, target = [], []
        for at, size, (start, stop) in zip(corner, self._chunk, bounds, strict=True):
            low, high = max(at, start), min(at + size, stop)
            source.append(slice(low - at, high - at))
            target.append(slice(low - start, high - start))
        place = block[tuple(target)]
        applied = [f for n, f in enumerate(self._filters) if not skipped >> n & 1]
        if place.shape == self._chunk and place.flags.c_contiguous:
            _decode(packed, applied, place)
            return
        whole = np.empty(self._chunk, self.dtype)
        _decode(packed, applied, whole)
        place[...] = whole[tuple(source)]

    def _refuse_changed(self, corner: tuple[int, ...], packed: bytes) -> None:
        place = tuple(at // size for at, size in zip(corner, self._chunk, strict=True))
        if checksum(packed) != int(self._sums[place]):  # type: ignore[index]
            words = f"the values of {self._name!r} at {corner} are not those that were written"
            raise unreadable(self._path, words, CHANGED)

    def _variable(self) -> h5py.Dataset:
        return self._files.acquire()[self._name]


class Guarded:
    """A variable that netCDF reads, as a lazy array whose errors name the file.

    >>> with xr.open_dataset(path) as dataset:
    ...     Guarded(path, dataset.variables["residual"])[0].shape
    (10, 30, 32)
    """

    def __init__(self, path: Path, variable: xr.Variable) -> None:
        self._path, self._held = path, variable
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        with reading(self._path):
            return np.asarray(self._held[key].values)


def checksum(packed: bytes) -> int:
    """64 bits over a chunk as it lies in the file: XXH3, under a hundredth of decoding it."""
    return xxhash.xxh3_64_intdigest(packed)


def filters(variable: h5py.Dataset) -> list[int]:
    """The filters of a variable's chunks, in the order in which they were applied."""
    made = variable.id.get_create_plist()
    return [made.get_filter(n)[0] for n in range(made.get_nfilters())]


def decodable(variable: h5py.Dataset) -> bool:
    """Whether `Chunks` can read a variable: floats as they are, every chunk there."""
    plain = not {"_FillValue", "scale_factor", "add_offset"} & set(variable.attrs)
    if variable.chunks is None or variable.dtype.kind != "f" or not variable.size or not plain:
        return False
    known = filters(variable) in ([], [_SHUFFLE, _ZLIB], [_BLOSC])
    if not known or variable.dtype.byteorder not in "=<|":
        return False
    parts = [-(-n // size) for n, size in zip(variable.shape, variable.chunks, strict=True)]
    return variable.id.get_num_chunks() == math.prod(parts)


def _decode(packed: bytes, applied: list[int], place: np.ndarray) -> None:
    if applied == [_BLOSC]:
        _refuse_overrun(packed, place.nbytes)
        blosc.decompress(packed, place)
        return
    raw = zlib.decompress(packed) if _ZLIB in applied else packed
    if _SHUFFLE in applied:
        raw = np.frombuffer(raw, np.uint8).reshape(place.itemsize, -1).T.tobytes()
    place[...] = np.frombuffer(raw, place.dtype).reshape(place.shape)


def _refuse_overrun(packed: bytes, size: int) -> None:
    # blosc believes its header, and reads beyond a chunk that is shorter than it says
    lengths = struct.unpack("<I4xI", packed[4:16])
    if lengths != (size, len(packed)):
        raise InputError(f"a chunk of {(size, len(packed))} bytes says that it has {lengths}")


def _bounds(key: Any, size: int) -> tuple[int, int]:
    chosen = range(size)[key] if isinstance(key, slice) else [range(size)[key]]
    return (min(chosen), max(chosen) + 1) if chosen else (0, 0)


def _corners(bounds: list[tuple[int, int]], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    steps = [
        range(start // size * size, stop, size)
        for (start, stop), size in zip(bounds, chunk, strict=True)
    ]
    return itertools.product(*steps)
