"""`.pt` files of persona_vectors, steering-vectors and others: tensors alone, no code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import reading, unreadable
from tracekit.storage.vector_files.vector_labels import assembled

# what steering-vectors calls a block's parts, and words in the names of modules
_SITES = {
    "decoder_block": "residual",
    "residual": "residual",
    "resid_post": "residual",
    "self_attn": "attention",
    "attn": "attention",
    "attention": "attention",
    "mlp": "mlp",
}
_PLAIN = {"", "layer", "layers", "block", "blocks", "model", "transformer", "h", "direction"}
_WANTED = "a dictionary from layer to a tensor (dim), a table (layer, dim) or a vector (dim)"


def read_pt(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
) -> xr.DataArray:
    """The vector (layer, dim) of a `.pt` file, read with `weights_only=True`: no code runs.

    A dictionary names its layers (0 is the first block). One vector (dim) needs `layer`. A table
    (rows, dim) does not say which layer its first row is: `depth`, the model's number of blocks,
    tells a table of hidden states (depth + 1 rows: the first is the embedding output, layer −1;
    the last, which transformers norms, is no residual and is left out) from one of blocks (depth
    rows); `first_layer` says it outright, and then every row is a layer. `site` is what the vector
    was taken from, kept in the provenance: "residual" unless the file says another.

    Errors: `FileNotFoundError`; `ValueError` naming the argument that is due, and for a file that
    is damaged, holds other objects, or has values that are not finite.
    Source: persona_vectors' `…_response_avg_diff.pt`, steering-vectors' `SteeringVector`.

    >>> torch.save(torch.ones(29, 8), "sycophantic_response_avg_diff.pt")
    >>> read_pt("sycophantic_response_avg_diff.pt", depth=28).layer.values[:3].tolist()
    [-1, 0, 1]
    """
    content = _loaded(Path(path))
    if isinstance(content, torch.Tensor):
        rows = _of_tensor(Path(path), content, layer, first_layer, depth)
        return assembled(rows, path, site or "residual")
    kind = content.get("layer_type") if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and "layer_activations" in content:
        content = content["layer_activations"]
    named = _of_mapping(Path(path), content)
    given = {"layer": layer, "first_layer": first_layer}
    if any(value is not None for value in given.values()):
        words = f"it names its layers itself ({sorted(named)[:3]}), and {given} was given"
        raise unreadable(Path(path), words, "Leave layer= and first_layer= out.")
    outside = [at for at in named if depth is not None and at >= depth]
    if outside:
        words = f"it has the layers {outside[:3]}, and a model of depth={depth}"
        raise unreadable(Path(path), words, "Give the depth of the model it was made with.")
    words_of = {kind} if kind is not None else {word for _, word in named.values()}
    rows = {at: _values(Path(path), tensor) for at, (tensor, _) in named.items()}
    return assembled(rows, path, _site(Path(path), words_of, site))


def _loaded(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    # what unpickling refuses may be either
    advice = "It is damaged, or holds objects, which could run code on reading. "
    with reading(path, f"{advice}Save its tensors again, as {_WANTED}."):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong:
                raise InputError(f"{wrong} is not what its checksum says")
        return torch.load(path, map_location="cpu", weights_only=True)


def _of_tensor(
    path: Path, tensor: torch.Tensor, layer: int | None, first: int | None, depth: int | None
) -> dict[int, np.ndarray]:
    values, due = _values(path, tensor), {"layer": layer, "first_layer": first, "depth": depth}
    if values.ndim == 1:
        if layer is None or first is not None:
            raise unreadable(path, f"one vector (dim), and {due} was given", "Give layer= alone.")
        return {layer: values}
    if values.ndim != 2 or layer is not None:
        words = f"a tensor of shape {values.shape}, and {due} was given; {_WANTED} was expected"
        raise unreadable(path, words, "A table takes first_layer= or depth=.")
    count = len(values)
    if first is None and depth is not None and count == depth + 1 > 1:
        return dict(enumerate(values[:-1], -1))
    if first is None and count != depth:
        words = f"a table of {count} rows, and depth={depth}: no telling which layer a row is"
        raise unreadable(path, words, "Give depth= (the model's blocks) or first_layer=.")
    start = first or 0
    if start < -1 or (depth is not None and start + count > depth):
        words = f"{count} rows from first_layer={start} do not fit depth={depth}"
        raise unreadable(path, words, "Give depth= alone for a table of hidden states.")
    return dict(enumerate(values, start))


def _of_mapping(path: Path, content: Any) -> dict[int, tuple[torch.Tensor, str]]:
    """Tensors by layer, each with the word of its key that may name a site."""
    items = list(content.items()) if isinstance(content, Mapping) else []
    named = [(_place(key), value) for key, value in items if isinstance(value, torch.Tensor)]
    found = {place[0]: (value, place[1]) for place, value in named if place is not None}
    if not found or len(found) < len(items):
        shown = sorted(map(str, content))[:4] if isinstance(content, Mapping) else type(content)
        words = f"it holds {shown}; a dictionary from layer to a tensor, once each, was expected"
        raise unreadable(path, words, "Save its tensors again, as " + _WANTED + ".")
    return found


def _place(key: Any) -> tuple[int, str] | None:
    """Layer and site's word of a key: 3, "3", "layer_3", "model.layers.3.mlp"."""
    if isinstance(key, bool) or not isinstance(key, int | str):
        return None
    parts = re.split(r"[._]?(?<![0-9A-Za-z])(\d+)(?![0-9A-Za-z])[._]?", str(key).replace("_", "."))
    if len(parts) != 3 or not set(parts[0].split(".")) <= _PLAIN:
        return None
    return int(parts[1]), parts[2].replace(".", "_")


def _site(path: Path, words: set[str], given: str | None) -> str:
    known = {_SITES.get(word, "residual" if word == "" else None) for word in words}
    site = known.pop() if len(known) == 1 else None
    if site is None and given is None:
        listed = f"vectors of {sorted(words)}; what these are here is not known"
        raise unreadable(path, listed, "Give site=, such as 'residual', 'attention' or 'mlp'.")
    if site is not None and given not in (None, site) and words != {""}:
        raise unreadable(
            path, f"site={given!r} was given, and it says {site!r}", "Leave site= out."
        )
    return given or str(site)


def _values(path: Path, tensor: torch.Tensor) -> np.ndarray:
    with reading(path, "Save it as a dense tensor of floats."):
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise InputError(f"a tensor of {tensor.dtype}, {tensor.layout}")
        values = tensor.detach().float().numpy()
    # a row by itself, as some tools keep it
    return values[0] if values.ndim == 2 and len(values) == 1 else values
