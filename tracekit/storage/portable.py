"""Captures rewritten with filters that every HDF5 has, for readers without a plugin."""

from __future__ import annotations

import os
from pathlib import Path

from tracekit.errors import InputError
from tracekit.storage import shard
from tracekit.storage.capture_folder import SETTINGS, Folder
from tracekit.storage.files import refuse_other_format
from tracekit.storage.store import lazily, storable, write


def make_portable(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Rewrite a capture's folder, or a file of `save`, so that any netCDF or HDF5 reader opens it.

    Values and labels stay as they are, bit for bit, under zlib in the place of blosc; checksums
    are compared while they are read, and made anew. Shard by shard, with one layer of one shard in
    memory; the same call again goes on where it was stopped. `open` reads the result as it reads
    the capture. Returns `out`.

    Errors: `FileNotFoundError`; `ValueError` for an unfinished capture, a damaged shard (named),
    the same path twice, and an `out` that holds something else.

    >>> make_portable(path, "for_everyone.nc")
    PosixPath('for_everyone.nc')
    """
    source, target = Path(path), Path(out)
    _refuse_paths(source, target)
    if source.is_dir():
        _rewrite_folder(Folder(source), Folder(target))
    else:
        refuse_other_format(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _rewrite(source, target)
    return target


def _refuse_paths(source: Path, target: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(
            f"{str(source)!r} was asked for and does not exist. Give a file or a capture's folder."
        )
    if source.resolve() == target.resolve():
        raise InputError(
            f"{str(source)!r} was asked to be rewritten onto itself. Give another path for it."
        )
    if source.is_dir() and not (source / SETTINGS).is_file():
        within = sorted(str(file.parent.relative_to(source)) for file in source.rglob(SETTINGS))
        raise InputError(
            f"The folder {str(source)!r} holds no capture of its own ({SETTINGS}); captures "
            f"within: {', '.join(within) or 'none'}. Give one of those, or a file of tk.save."
        )
    if source.is_file() and target.is_dir():
        raise IsADirectoryError(f"{str(target)!r} is a folder; a file becomes one file, as x.nc.")


def _rewrite_folder(source: Folder, target: Folder) -> None:
    content, shards = source.content(), source.verify(partial=False)
    settings = {**content["settings"], "compression": shard.PORTABLE_CODEC}
    with target.locked():
        target.begin(settings, content["shards"], content["rows"])
        done = target.records()
        for file in shards:
            if file.name not in done:
                _rewrite(file, target.path / file.name)
                target.record(shard.record_of(target.path / file.name))


def _rewrite(source: Path, target: Path) -> None:
    # as long to import as xarray, and opening a file must not need it
    import dask

    with lazily(source) as dataset, dask.config.set(scheduler="synchronous"):
        write(storable(dataset), target, shard.PORTABLE_CODEC)
