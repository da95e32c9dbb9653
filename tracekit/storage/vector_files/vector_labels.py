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


def by_layer(vectors: xr.DataArray) -> dict[str | None, dict[int, np.ndarray]]:
    """Rows by layer, by trait: of (layer, dim) under None, of (trait, layer, dim) by its name.

    Errors: `ValueError` for other dims, and as `require_writable`.
    """
    vectors = with_layers(vectors)
    if set(vectors.dims) not in ({"layer", "dim"}, {"trait", "layer", "dim"}):
        raise InputError(
            f"Vectors (layer, dim) or (trait, layer, dim) are needed; these have the dims "
            f"{vectors.dims}. Choose one with .sel(extraction=…)."
        )
    require_writable(vectors)
    several = "trait" in vectors.dims
    traits = vectors["trait"].values.tolist() if several else [None]
    table = (
        vectors.expand_dims(trait=[""])
        if not several and "trait" not in vectors.coords
        else vectors
    )
    table = table if "trait" in table.dims else table.expand_dims("trait")
    values = np.asarray(table.transpose("trait", "layer", "dim").values, np.float32)
    layers = vectors["layer"].values.tolist()
    return {
        trait: dict(zip(layers, np.ascontiguousarray(rows), strict=True))
        for trait, rows in zip(traits, values, strict=True)
    }


def refuse_embedding(vectors: xr.DataArray, path: Path) -> None:
    """Errors: `ValueError` for layer −1 in a format where others count so from the end."""
    if "layer" in vectors.coords and bool((vectors["layer"] < 0).any()):
        layers = np.atleast_1d(vectors["layer"].values).tolist()
        raise InputError(
            f"{str(path)!r} was to be written with the layers {layers}; as a key of such a file, "
            "−1 counts from the end in other tools. Write .safetensors, or leave the embedding's "
            "vector out: .sel(layer=slice(0, None))."
        )


def with_layers(vectors: xr.DataArray) -> xr.DataArray:
    """The vectors with a `layer` dim, of which one layer that was selected has none."""
    alone = "layer" in vectors.coords and "layer" not in vectors.dims
    return vectors.expand_dims("layer") if alone else vectors


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


def require_site(vectors: xr.DataArray, site: str | None) -> None:
    """Refuse values of another site than the vectors were taken from.

    Vectors of the residual stream read what is written to it as well (heads, attention, mlp). A
    site that is not known passes.

    Errors: `ValueError` naming both sites.
    """
    own = site_of(vectors)
    if own in (None, "residual", site) or site is None:
        return
    raise InputError(
        f"The vectors were taken from the site {own!r}, and the values are of {site!r}: a "
        f"direction of one says nothing in the other. Capture site={own!r}, or extract vectors "
        f"from {site!r} (vectors.drop_attrs() are of no known site)."
    )
