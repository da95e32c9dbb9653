"""Vectors to and from other tools' files: what a file is, its suffix says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xarray as xr

from tracekit.errors import InputError, InputTypeError
from tracekit.storage import vector_files
from tracekit.storage.files import unreadable
from tracekit.storage.vector_files.arguments import (
    Given,
    refuse_given,
    require_depth,
    require_model,
    require_numbers,
)

_KINDS = {
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    **dict.fromkeys((".pt", ".pth", ".bin"), "pt"),
    **dict.fromkeys((".npy", ".npz"), "numpy"),
    **dict.fromkeys((".json", ".svec"), "json"),
}
READERS = {suffix: f"read_{kind}" for suffix, kind in _KINDS.items()}
WRITERS = {
    suffix: f"write_{kind}" for suffix, kind in _KINDS.items() if suffix not in (".bin", ".svec")
}


def read_vectors(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
    model: Any = None,
) -> xr.DataArray:
    """The vectors (…, layer, dim) of a file of another tool, in its values' own scale and sign.

    `.safetensors`, `.gguf`, `.pt` (`.pth`, `.bin`), `.npy`, `.npz`, `.json` (`.svec`). Layers are
    block outputs from 0, as everywhere here; `docs/files_in.md` says how other tools count. Where
    a file does not say its layers, `layer` is that of one vector, `first_layer` that of a table's
    first row, and `depth` (or `model`, the loaded one) tells a table of hidden states (depth + 1
    rows: the first is the embedding output, −1; the last, which transformers norms, is left out)
    from one of blocks. `site` is what the vectors were taken from. With `model`, width and layers
    must be the model's. Vectors that tracekit saved as netCDF are opened with `tracekit.open`.

    Errors: `ValueError` for another suffix, a damaged file, one that holds something else (a LoRA,
    a sparse autoencoder), one that does not say which layers it is of, and for arguments that it
    says itself; `FileNotFoundError`.

    >>> path = write_vectors(vectors, "traits.safetensors")
    >>> read_vectors(path, model=model).dims
    ('trait', 'layer', 'dim')
    """
    path = Path(path)
    reader = _by_suffix(path, READERS)
    given = Given(layer, first_layer, _depth(path, depth, model), site)
    require_numbers(path, given)
    if path.suffix.lower() == ".gguf":
        refuse_given(path, given)
        vectors = reader(path)
    else:
        vectors = reader(path, **asdict(given))
    if model is not None:
        require_model(path, vectors, model)
    elif given.depth is not None:
        # what says its layers itself
        require_depth(path, vectors, given.depth)
    return vectors


def write_vectors(
    vectors: xr.DataArray, path: str | Path, *, model_type: str | None = None
) -> Path:
    """Vectors into a file that other tools read; safetensors and GGUF hold provenance and checksum.

    `.safetensors` takes vectors (…, layer, dim); `.gguf` one control vector (layer, dim) or one
    layer of it, and needs `model_type`, such as "llama". `.json`, `.pt` and `.npz` take (layer,
    dim) and (trait, layer, dim), `.npy` consecutive layers of one vector; of these JSON alone holds
    the provenance, and none a checksum. Another site than the residual is kept by all but GGUF and
    `.npy`, which refuse it. The folder is made. Returns the path.

    Errors: `ValueError` for another suffix, for vectors that the format cannot hold, and for a
    `model_type` that is missing or of no use; `TypeError` for what is no DataArray.

    >>> honesty = vectors.sel(trait="alignment/honesty", layer=slice(1, None))
    >>> write_vectors(honesty, "honesty.gguf", model_type="llama")
    PosixPath('honesty.gguf')
    """
    writer, gguf = _by_suffix(Path(path), WRITERS), Path(path).suffix.lower() == ".gguf"
    if not isinstance(vectors, xr.DataArray):
        raise InputTypeError(
            f"write_vectors was given {type(vectors).__name__}; which layer a row is of has to "
            "be known. Give a DataArray (layer, dim), as tk.traces and traits.extract make it."
        )
    if gguf == (model_type is None):
        advice = (
            'model_type="llama", as model.config.model_type says it'
            if gguf
            else "a path in .gguf, or no model_type="
        )
        raise InputError(
            f"Vectors were to be written at {str(path)!r} with model_type={model_type!r}; a GGUF "
            f"file, and no other, says the model's architecture. Give {advice}."
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return writer(vectors, path, model_type) if gguf else writer(vectors, path)


def _depth(path: Path, depth: int | None, model: Any) -> int | None:
    blocks = None if model is None else len(model.layers)
    if blocks is not None and depth not in (None, blocks):
        words = f"depth={depth} was given, and a model of {blocks} blocks"
        raise unreadable(path, words, "Give one of them.")
    return depth if blocks is None else blocks


def _by_suffix(path: Path, known: Mapping[str, str]) -> Callable[..., Any]:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise InputError(
            f"A file of vectors was asked for at {str(path)!r}; the kinds are {', '.join(known)}. "
            "Give a path that ends in one of them (netCDF: tracekit.open and tracekit.save)."
        )
    # by name, so that a kind's library is imported for that kind alone
    return getattr(vector_files, known[suffix])
