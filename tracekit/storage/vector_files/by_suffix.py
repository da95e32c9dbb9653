"""Vectors to and from other tools' files: what a file is, its suffix says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from tracekit.errors import InputError
from tracekit.storage import vector_files
from tracekit.storage.vector_files.conventions import Given, refuse_given, require_model

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
    options: dict[str, Any] = {"layer": layer, "first_layer": first_layer, "site": site}
    if path.suffix == ".gguf":
        refuse_given(path, Given(**options))
        vectors = reader(path)
    else:
        # what says its depth itself is compared with the model's afterwards
        vectors = reader(path, **options, depth=len(model.layers) if model is not None else depth)
    if model is not None:
        require_model(path, vectors, model)
    return vectors


def write_vectors(vectors: xr.DataArray, path: str | Path, **options: Any) -> Path:
    """Vectors into a file that other tools read; safetensors and GGUF hold provenance and checksum.

    `.safetensors` takes vectors (…, layer, dim); `.gguf` one control vector (layer, dim) or one
    layer of it, and needs `model_type`, such as "llama". `.json`, `.pt` and `.npz` take (layer,
    dim) and (trait, layer, dim), `.npy` consecutive layers of one vector; of these JSON alone holds
    the provenance, and none a checksum. Returns the path.

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
