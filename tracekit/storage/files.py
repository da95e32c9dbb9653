"""Files: written whole or not at all, and read through one door, so that any damage is one line."""

from __future__ import annotations

import atexit
import errno
import functools
import glob
import hashlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tracekit.errors import InputError

_ROWS = "tk.read_prompts (prompts) or traits.read_pairs (contrast pairs)"
_VECTORS = (".pt", ".pth", ".npy", ".npz", ".safetensors", ".gguf")
# suffixes that say another format than netCDF: what reads such a file here, and what writes it
READERS: Mapping[str, str] = {
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"), _ROWS),
    ".json": f"{_ROWS}, or tk.read_vectors",
    **dict.fromkeys((*_VECTORS, ".bin", ".svec"), "tk.read_vectors"),
    ".zarr": "xarray.open_zarr",
    ".txt": "traits.read_pairs(…, twins=…) (contrast pairs), or give tk.encode its lines",
    **dict.fromkeys((".html", ".htm"), "a browser"),
    **dict.fromkeys((".pkl", ".pickle", ".pdf", ".png", ".xlsx", ".zip", ".gz"), "what wrote it"),
}
WRITERS: Mapping[str, str] = {
    **dict.fromkeys((".jsonl", ".parquet", ".zarr"), "tk.export"),
    **dict.fromkeys((*_VECTORS, ".json"), "tk.write_vectors"),
    **dict.fromkeys((".html", ".htm"), "tk.view"),
}
DAMAGED = "It is damaged or of another kind; make it again."

# what the operating system says of a path, whatever is in the file
_NAMES = """ENOENT EACCES EPERM EISDIR ENOTDIR ELOOP ENAMETOOLONG EMFILE ENFILE ENOMEM EAGAIN EIO
ESTALE ETIMEDOUT"""
_SYSTEM = {getattr(errno, name) for name in _NAMES.split()}


class UnreadableError(InputError):
    """A file that cannot be read, or whose bytes are not those that were written."""


@contextmanager
def reading(path: Path, advice: str = DAMAGED) -> Iterator[None]:
    """Whatever a library raises on this file becomes one line with the path and what to do.

    Errors: `UnreadableError` (an `InputError`). What is no fault of the file stays as it is: no
    memory, and what the operating system says (no such file, no right to read it).

    >>> with reading(path):
    ...     dataset = xr.open_dataset(path)
    """
    try:
        yield
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _SYSTEM:
            raise
        ours = isinstance(error, InputError)
        words = str(error) if ours else f"{type(error).__name__}: {error}"
        raise unreadable(path, words, advice) from error


def unreadable(path: Path, words: str, advice: str = DAMAGED) -> UnreadableError:
    """The error for a file, in one line however many the words have."""
    line = " ".join(words.split())[:300]
    return UnreadableError(f"{str(path)!r} cannot be read ({line}). {advice}")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block ends.

    xarray's lock on netCDF is taken in Python: an interruption in the middle of that leaves it
    taken, and whatever touches a file next waits for ever.

    >>> with uninterrupted():
    ...     dataset = xr.open_dataset(path)
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    interruptions: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *interruption: interruptions.append(interruption))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if interruptions:
        handler(*interruptions[0])


@contextmanager
def whole(path: Path, needed: int) -> Iterator[Path]:
    """The temporary name of a file, which takes its own once the block has ended well.

    Temporary files that a killed process left of the same file are removed.

    Errors: `OSError` naming the file and the bytes that it needs when the disk is full.

    >>> with whole(Path("note.txt"), needed=5) as part:
    ...     part.write_bytes(b"hello")
    5
    """
    drop_parts(path)
    part = part_of(path)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        if not _is_full(error, path, needed):
            raise
        raise disk_full(path, needed) from error
    finally:
        part.unlink(missing_ok=True)


def _is_full(error: Exception, path: Path, needed: int) -> bool:
    number = getattr(error, "errno", None) or 0
    if number > 0:
        return number == errno.ENOSPC
    # HDF5 reports a full disk as "NetCDF: HDF error", whose number is negative
    return shutil.disk_usage(path.parent).free < needed


def part_of(path: Path) -> Path:
    """The temporary name of a file that this thread is writing."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")


def drop_parts(path: Path) -> None:
    """Remove the temporary files of this file whose process is gone."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = part.name.split(".")[-2].partition("-")[0]
        if process.isdigit() and not _lives(int(process)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def disk_full(path: Path, needed: int) -> OSError:
    """The error for a file that did not fit."""
    free = shutil.disk_usage(path.parent).free
    return OSError(
        errno.ENOSPC,
        f"The disk is full: {path.name} in {str(path.parent)!r} needs {needed:,} bytes and "
        f"{free:,} are free. What is finished there is intact; make space and run the same again.",
    )


def refuse_other_format(path: Path) -> None:
    """Errors: `InputError` for netCDF under a name that says another format, such as x.csv."""
    suffix = path.suffix.lower()
    if suffix in READERS:
        other = f", or write {suffix} with {WRITERS[suffix]}" if suffix in WRITERS else ""
        raise InputError(
            f"netCDF was asked for at {str(path)!r}, whose {suffix} says another format. "
            f"Give a name that ends in .nc{other}."
        )


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(path: Path) -> Path:
    """The same file under a name that netCDF takes: it turns each backslash into a slash.

    >>> plain(Path("runs/x.nc"))
    PosixPath('runs/x.nc')
    """
    text = os.path.abspath(path)
    if "\\" not in text and text.isprintable():
        return path
    # the file's own folder, so that a file yet to be written has such a name too
    return _link(os.path.dirname(text)) / _escaped(os.path.basename(text), path)


def _escaped(name: str, path: Path) -> str:
    if "\\" in name or not name.isprintable():
        raise InputError(
            f"The file name {name!r} in {str(path.parent)!r} was asked for; netCDF takes none with "
            "a backslash or control characters. Give another name."
        )
    return name


@functools.cache
def _link(folder: str) -> Path:
    link = Path(tempfile.mkdtemp(prefix="tracekit-")) / "folder"
    link.symlink_to(folder)
    atexit.register(shutil.rmtree, link.parent, ignore_errors=True)
    return link
