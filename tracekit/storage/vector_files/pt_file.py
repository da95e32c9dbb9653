"""`.pt` files of persona_vectors, steering-vectors and others: tensors alone, no code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch raises; nothing is unpickled
from typing import Any

import numpy as np
import torch
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import reading, whole
from tracekit.storage.vector_files.arguments import Given
from tracekit.storage.vector_files.conventions import WANTED, labelled, squeezed
from tracekit.storage.vector_files.vector_labels import by_layer, refuse_embedding, site_of


def read_pt(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
) -> xr.DataArray:
    """The vector (layer, dim), or vectors (trait, layer, dim), of a `.pt` file: no code runs.

    It is read with `weights_only=True`. A dictionary names its layers (0 is the first block), or
    its traits, each of them a vector. One vector (dim) needs `layer`. A table
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
    content = _arrays(Path(path), _loaded(Path(path)))
    return labelled(Path(path), content, Given(layer, first_layer, depth, site))


def write_pt(vectors: xr.DataArray, path: str | Path) -> Path:
    """A vector (layer, dim) as a dictionary from layer to tensor; (trait, …) as one of those.

    Other tools read it; of the provenance it holds nothing but another site than the residual,
    beside that dictionary: {"site": "mlp", "layers": {…}}, or "traits".

    Errors: `ValueError` for other dims, layers without labels, layer −1, and values that are not
    finite.

    >>> read_pt(write_pt(vectors, "traits.pt")).dims
    ('trait', 'layer', 'dim')
    """
    refuse_embedding(vectors, Path(path))
    traits: dict[Any, Any] = {
        trait: {layer: torch.tensor(row) for layer, row in rows.items()}
        for trait, rows in by_layer(vectors).items()
    }
    kind, content = ("layers", traits[None]) if None in traits else ("traits", traits)
    site = site_of(vectors)
    if site not in (None, "residual"):
        content = {"site": site, kind: content}
    with whole(Path(path), vectors.nbytes + 4096) as part:
        torch.save(content, part)
    return Path(path)


def _loaded(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    # what unpickling refuses may be either
    advice = "It is damaged, or holds objects, which could run code on reading. "
    with reading(path, f"{advice}Save its tensors again, as {WANTED}."):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong:
                raise InputError(f"{wrong} is not what its checksum says")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            # torch's own text is a page, with codes for a terminal
            named = re.search(r"GLOBAL (\S+)", str(error))
            if named is None:
                raise
            numpy = named[1].startswith("numpy")
            what = "arrays of numpy, pickled" if numpy else "an object"
            raise InputError(f"it holds {what} ({named[1]})") from error


def _arrays(path: Path, content: Any) -> Any:
    """Tensors as arrays, at any depth of dictionaries."""
    if isinstance(content, Mapping):
        return {key: _arrays(path, value) for key, value in content.items()}
    return _values(path, content) if isinstance(content, torch.Tensor) else content


def _values(path: Path, tensor: torch.Tensor) -> np.ndarray:
    with reading(path, "Save it as a dense tensor of floats."):
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise InputError(f"a tensor of {tensor.dtype}, {tensor.layout}")
        double = tensor.dtype == torch.float64
        return squeezed((tensor.detach() if double else tensor.detach().float()).numpy())
