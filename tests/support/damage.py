"""Damaged files: what is read is right, or one clear line that names the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import xarray as xr


def flips(content: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The content with one bit of one byte changed, at each place."""
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def cuts(content: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    """The content up to each length."""
    return (content[:length] for length in lengths)


def outcomes(
    damaged: Iterable[bytes],
    folder: Path,
    suffix: str,
    read: Callable[[Path], Any],
    expected: Any,
) -> Counter[str]:
    """How often the right values came back, and how often one line that names the file.

    Each content is a new file: HDF5 keeps what it knows of one that is open.
    """
    counts: Counter[str] = Counter()
    for number, content in enumerate(damaged):
        path = folder / f"damaged{number}{suffix}"
        path.write_bytes(content)
        counts[outcome(lambda path=path: read(path), path.name, expected)] += 1
        path.unlink()
    return counts


def outcome(read: Callable[[], Any], name: str, expected: Any) -> str:
    """`right` or `refused`; an `AssertionError` for anything else."""
    try:
        found = read()
    except ValueError as error:
        message = str(error)
        assert name in message, message
        assert "\n" not in message, message
        assert message.rstrip().endswith("."), message
        return "refused"
    xr.testing.assert_identical(found, expected)
    return "right"
