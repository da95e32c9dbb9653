"""Vectors to and from other tools' files: what a file is, its suffix says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from tracekit.errors import InputError
from tracekit.storage import vector_files

READERS = {".safetensors": "read_safetensors", ".gguf": "read_gguf", ".pt": "read_pt"}
WRITERS = {".safetensors": "write_safetensors", ".gguf": "write_gguf"}


def read_vectors(path: str | Path, **options: Any) -> xr.DataArray:
    """The vectors (…, layer, dim) of a `.safetensors`, `.gguf` or `.pt` file.

    A `.pt` file says little of itself: `layer`, `first_layer`, `depth` and `site` say the rest.
    Vectors that tracekit saved as netCDF are opened with `tracekit.open`.

    Errors: `ValueError` for another suffix, a damaged file, or a file that does not say which
    layers it is of; `FileNotFoundError`; `TypeError` for options that the kind of file has not.

    >>> path = write_vectors(vectors, "traits.safetensors")
    >>> read_vectors(path).dims
    ('trait', 'layer', 'dim')
    """
    return _by_suffix(Path(path), READERS)(path, **options)


def write_vectors(vectors: xr.DataArray, path: str | Path, **options: Any) -> Path:
    """Vectors into a file that other tools read, with provenance and a checksum inside.

    `.safetensors` takes vectors (…, layer, dim); `.gguf` one control vector (layer, dim), and
    needs `model_type`, such as "llama". Returns the path.

    Errors: `ValueError` for another suffix, and for vectors that the format cannot hold.

    >>> honesty = vectors.sel(trait="alignment/honesty", layer=slice(1, None))
    >>> write_vectors(honesty, "honesty.gguf", model_type="llama")
    PosixPath('honesty.gguf')
    """
    return _by_suffix(Path(path), WRITERS)(vectors, path, **options)


def _by_suffix(path: Path, known: Mapping[str, str]) -> Callable[..., Any]:
    if path.suffix not in known:
        raise InputError(
            f"A file of vectors was asked for at {str(path)!r}; the kinds are {', '.join(known)}. "
            "Give a path that ends in one of them (netCDF: tracekit.open and tracekit.save)."
        )
    # by name, so that a kind's library is imported for that kind alone
    return getattr(vector_files, known[path.suffix])
