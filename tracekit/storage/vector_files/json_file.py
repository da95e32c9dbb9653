"""Vectors as JSON: this project's, Neuronpedia's, and the `.svec` files of activation-steering."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.storage.files import reading, whole
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files.arguments import Given
from tracekit.storage.vector_files.conventions import labelled
from tracekit.storage.vector_files.vector_labels import (
    by_layer,
    provenance_of,
    refuse_embedding,
    site_of,
)


def read_json(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
) -> xr.DataArray:
    """The vectors of a JSON file: lists of numbers by layer, by trait, or one with its place.

    Read are `{"layers": {"12": […]}}`, `{"traits": {"a/b": {"12": […]}}}`, `{"layer": 12,
    "vector": […]}`, the same with Neuronpedia's `hookName`, `{"directions": {"12": […]}}`, and a
    list as `read_pt` reads a tensor.

    Errors: `FileNotFoundError`; `ValueError` for a file that is no such JSON.

    >>> held = '{"hookName": "blocks.3.hook_resid_pre", "vector": [1, 2]}'
    >>> Path("kind.json").write_text(held) > 0
    True
    >>> read_json("kind.json").layer.values.tolist()
    [2]
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    with reading(path, "Give JSON of lists of numbers, by layer."):
        content = _arrays(json.loads(path.read_text("utf-8-sig")))
    kept = content.pop("provenance", None) if isinstance(content, dict) else None
    array = labelled(path, content, Given(layer, first_layer, depth, site))
    return stamp(array, kept) if isinstance(kept, dict) else array


def write_json(vectors: xr.DataArray, path: str | Path) -> Path:
    """Vectors (layer, dim) or (trait, layer, dim) as JSON, with site and provenance.

    Errors: `ValueError` for other dims, layers without labels, layer −1, and values that are not
    finite.

    >>> read_json(write_json(vectors, "traits.json")).dims
    ('trait', 'layer', 'dim')
    """
    refuse_embedding(vectors, Path(path))
    traits: dict[Any, Any] = {
        trait: {str(layer): row.tolist() for layer, row in rows.items()}
        for trait, rows in by_layer(vectors).items()
    }
    held = {"layers": traits[None]} if None in traits else {"traits": traits}
    about = {"site": site_of(vectors) or "residual"}
    text = json.dumps({**about, **held, "provenance": json.loads(provenance_of(vectors))})
    with whole(Path(path), len(text)) as part:
        part.write_text(text, "utf-8")
    return Path(path)


def _arrays(content: Any) -> Any:
    """Lists of numbers as arrays, at any depth of objects."""
    if isinstance(content, dict):
        return {
            key: _arrays(value) if key != "provenance" else value for key, value in content.items()
        }
    if isinstance(content, list) and content and isinstance(content[0], int | float | list):
        return np.asarray(content, np.float64)
    return content
