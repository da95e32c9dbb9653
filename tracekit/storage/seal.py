"""Checksums behind a netCDF file's end: of each chunk of values, and of everything else in it.

HDF5 does not look beyond the end that its header names, so every reader opens such a file. The
checksum of everything else (labels, attributes, HDF5's own tables) is compared before HDF5 sees
the file; a chunk's when the chunk is read, so that one layer costs what one layer holds. The
format: a JSON line, its hash, its length and `MAGIC`.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import xxhash

from tracekit.storage.chunk_reader import CHANGED, checksum, decodable
from tracekit.storage.files import reading, unreadable

Packed = Mapping[str, Mapping[tuple[int, ...], bytes]]
MAGIC = b"tk-seal1"
_END = struct.Struct("<QQ8s")
_BLOCK = 1 << 20


def seal(path: Path, packed: Packed | None = None) -> None:
    """Append the checksums to a netCDF file that is complete.

    `packed` are chunks that are still in memory, by variable and place: not read again.
    """
    held = packed or {}
    with h5py.File(path, "r", locking=False) as file, path.open("rb") as stream:
        chunks = {name: _chunks(file[name]) for name in file if _is_values(file[name])}
        sums = {
            name: _sums(file[name], infos, stream, held.get(name, {}))
            for name, infos in chunks.items()
        }
    taken = [(info.byte_offset, info.size) for infos in chunks.values() for info in infos]
    ranges = _outside(taken, path.stat().st_size)
    with path.open("rb+") as stream:
        content = {"sums": sums, "ranges": ranges, "outline": _outline(stream, ranges)}
        line = json.dumps(content).encode() + b"\n"
        stream.seek(0, 2)
        stream.write(line + _END.pack(xxhash.xxh3_64_intdigest(line), len(line), MAGIC))


def verified(path: Path) -> dict[str, np.ndarray]:
    """The chunks' checksums of a file in which everything else is as it was written.

    A table in the grid of chunks, by variable; none for a file without a seal: written by other
    tools, or before there were seals.

    Errors: `UnreadableError` for a file that differs from what was sealed.
    """
    with path.open("rb") as stream:
        content = _content(path, stream)
        if content is None:
            return {}
        if _outline(stream, content["ranges"]) != content["outline"]:
            raise unreadable(path, "its labels or tables are not those written", CHANGED)
    return {name: _table(*about) for name, about in content["sums"].items()}


def _content(path: Path, stream: BinaryIO) -> dict[str, Any] | None:
    length = stream.seek(0, 2)
    if length < _END.size:
        return None
    stream.seek(length - _END.size)
    hashed, size, magic = _END.unpack(stream.read())
    if magic != MAGIC:
        return None
    stream.seek(max(length - _END.size - size, 0))
    line = stream.read(min(size, length - _END.size))
    if xxhash.xxh3_64_intdigest(line) != hashed:
        raise unreadable(path, "its checksums are damaged", CHANGED)
    with reading(path, CHANGED):
        return json.loads(line)


def _is_values(item: Any) -> bool:
    # what Chunks does not read is compared as a whole
    return isinstance(item, h5py.Dataset) and decodable(item)


def _chunks(variable: h5py.Dataset) -> list[Any]:
    infos: list[Any] = []
    variable.id.chunk_iter(infos.append)
    return infos


def _sums(
    variable: h5py.Dataset,
    infos: Sequence[Any],
    stream: BinaryIO,
    held: Mapping[tuple[int, ...], bytes],
) -> tuple[list[int], str]:
    shape = [-(-n // size) for n, size in zip(variable.shape, variable.chunks, strict=True)]
    table = np.zeros(shape, "<u8")
    for info in infos:
        chunk = held.get(tuple(info.chunk_offset))
        if chunk is None:
            stream.seek(info.byte_offset)
            chunk = stream.read(info.size)
        place = [at // size for at, size in zip(info.chunk_offset, variable.chunks, strict=True)]
        table[tuple(place)] = checksum(chunk)
    return shape, base64.b64encode(table.tobytes()).decode()


def _table(shape: Sequence[int], text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<u8", math.prod(shape)).reshape(shape)


def _outside(taken: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """What lies between the chunks, as (start, stop)."""
    ranges, at = [], 0
    for start, size in [*sorted(taken), (end, 0)]:
        if start > at:
            ranges.append((at, start))
        at = max(at, start + size)
    return ranges


def _outline(stream: BinaryIO, ranges: Sequence[Sequence[int]]) -> str:
    hashed = xxhash.xxh3_128()
    for start, stop in ranges:
        stream.seek(start)
        for piece in _pieces(stream, stop - start):
            hashed.update(piece)
    return hashed.hexdigest()


def _pieces(stream: BinaryIO, left: int) -> Iterator[bytes]:
    while left > 0 and (piece := stream.read(min(left, _BLOCK))):
        left -= len(piece)
        yield piece
