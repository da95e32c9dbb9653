"""What every vector file needs: layers that are known, values that are finite, a provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import unreadable
from tracekit.storage.provenance import stamp


def require_writable(vectors: xr.DataArray) -> None:
    """Errors: `ValueError` without integer labels of layers, with one twice, or not finite."""
    layers = vectors["layer"].values if "layer" in vectors.coords else np.array([])
    if layers.dtype.kind not in "iu" or len(np.unique(layers)) != vectors.sizes["layer"]:
        raise InputError(
            f"Vectors of {vectors.sizes['layer']} layers were to be written; their labels are "
            f"{layers.tolist() or 'missing'}. Label each layer once: .assign_coords(layer=[12, …])."
        )
    wrong = ~np.isfinite(np.asarray(vectors.values, np.float32))
    if wrong.any():
        first = [axis[0] for axis in np.nonzero(wrong)]
        place = {
            str(dim): vectors[dim].values[at].item()
            for dim, at in zip(vectors.dims, first, strict=True)
        }
        raise InputError(
            f"Vectors were to be written in which {int(wrong.sum()):,} values are not finite, the "
            f"first at {place}. Drop those layers, or extract the vectors again."
        )


def assembled(rows: Mapping[int, np.ndarray], path: str | Path, site: str) -> xr.DataArray:
    """Rows (dim) by layer as one vector (layer, dim) of a site.

    Errors: `ValueError` for rows of several sizes and values that are not finite.
    """
    sizes = sorted({row.shape for row in rows.values()})
    if len(sizes) != 1 or len(sizes[0]) != 1 or not sizes[0][0]:
        words = f"a vector (dim) a layer was expected; its tensors have the shapes {sizes}"
        raise unreadable(Path(path), words, "Give one vector of one width a layer.")
    layers = sorted(rows)
    with np.errstate(over="ignore"):
        values = np.stack([rows[layer] for layer in layers]).astype(np.float32)
    wrong = [n for n, row in zip(layers, values, strict=True) if not np.isfinite(row).all()]
    if wrong:
        words = f"the values of layers {wrong[:5]} are not finite as float32"
        raise unreadable(Path(path), words, "Make the vectors again.")
    coords = {"layer": np.asarray(layers, np.int32), "dim": np.arange(values.shape[-1])}
    array = xr.DataArray(values, dims=("layer", "dim"), coords=coords, name="vector")
    made = {"made_by": "tracekit.storage.vector_files", "file": Path(path).name, "site": site}
    return stamp(array, made)


def provenance_of(array: xr.DataArray) -> str:
    """An array's provenance as text, one that says nothing where it has none."""
    return str(array.attrs.get("provenance", json.dumps({"source": None})))


def site_of(array: xr.DataArray) -> str | None:
    """The site that a vector was taken from, as far as its provenance knows."""
    made: Any = json.loads(provenance_of(array))
    while isinstance(made, dict):
        if made.get("site"):
            return str(made["site"])
        made = made.get("source")
    return None
