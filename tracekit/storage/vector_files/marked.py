"""A checksum inside a file's own metadata: what is written here is compared when it is read.

The metadata's entry `tracekit.sha256` holds the SHA-256 of the whole file in which these 64 digits
are zeros. It is looked for in the bytes, so that it is compared before any header is believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from tracekit.errors import InputError
from tracekit.storage.files import unreadable, whole

KEY, BLANK = "tracekit.sha256", "0" * 64
# in the JSON of safetensors, and as a string of GGUF: its type and its length before the digits
_ENTRY = re.compile(rb'tracekit\.sha256(?:":\s*"|\x08\0\0\0\x40\0{7})([0-9a-f]{64})')
_DAMAGED = "It was damaged or edited since it was written; write it again, or copy it anew."


def write_marked(path: Path, size: int, write: Callable[[Path], object]) -> Path:
    """What `write` puts into a file, whole or not at all, with its checksum for the blank one."""
    with whole(path, size) as part:
        write(part)
        content = part.read_bytes()
        entry = _ENTRY.search(content)
        if entry is None:
            raise InputError(f"{str(path)!r} was to be written with a checksum, and has no {KEY}.")
        start, stop = entry.span(1)
        hashed = hashlib.sha256(content).hexdigest().encode()
        part.write_bytes(content[:start] + hashed + content[stop:])
    return path


def read_marked(path: str | Path) -> bytes:
    """The bytes of a file, compared with the checksum in it if there is one.

    Errors: `FileNotFoundError`, `IsADirectoryError`; `ValueError` for bytes that changed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    content = path.read_bytes()
    if KEY.encode() not in content:
        return content
    entry = _ENTRY.search(content)
    if entry is None:
        raise unreadable(path, "its checksum is damaged", _DAMAGED)
    start, stop = entry.span(1)
    hashed = hashlib.sha256(content[:start] + BLANK.encode() + content[stop:])
    if hashed.hexdigest().encode() != entry[1]:
        raise unreadable(path, "its bytes are not those that were written", _DAMAGED)
    return content
