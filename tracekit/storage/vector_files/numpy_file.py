"""Vectors as numpy's `.npy` and `.npz`: no pickle is read, and none is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import reading, whole
from tracekit.storage.vector_files.arguments import Given
from tracekit.storage.vector_files.conventions import labelled, require_floats
from tracekit.storage.vector_files.vector_labels import by_layer, refuse_embedding, site_of


def read_numpy(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
) -> xr.DataArray:
    """The vector of a `.npy` file, or those of a `.npz` file by their names, as `read_pt`.

    Errors: `FileNotFoundError`; `ValueError` for a file that is damaged, holds objects, or does
    not say which layers it is of.

    >>> np.save("kind.npy", np.ones(8))
    >>> read_numpy("kind.npy", layer=12).layer.values.tolist()
    [12]
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    with reading(path, "It is damaged, or holds objects. Save its arrays of floats again."):
        loaded = np.load(path, allow_pickle=False)
        content = loaded if isinstance(loaded, np.ndarray) else dict(loaded.items())
        if isinstance(content, dict):
            content = {name: _text(values) for name, values in content.items()}
    arrays = content.values() if isinstance(content, dict) else [content]
    for values in arrays:
        if not isinstance(values, str):
            require_floats(path, values)
    return labelled(path, content, Given(layer, first_layer, depth, site))


def write_numpy(vectors: xr.DataArray, path: str | Path) -> Path:
    """Vectors as `.npz` (`layer_12`, or `trait:layer_12`), or as `.npy` without any labels.

    `.npy` takes one vector of one layer (dim) or of consecutive ones (layer, dim), and is read
    again with `layer=` or `first_layer=`. Neither holds the provenance; `.npz` has another site
    than the residual as the text `site`.

    Errors: `ValueError` for other dims or layers, values that are not finite, for layer −1 in
    `.npz`, and for `.npy` of another site.

    >>> read_numpy(write_numpy(vectors, "traits.npz")).dims
    ('trait', 'layer', 'dim')
    """
    path, traits, site = Path(path), by_layer(vectors), site_of(vectors)
    elsewhere = site not in (None, "residual")
    if path.suffix.lower() == ".npz":
        refuse_embedding(vectors, path)
        named = {
            f"layer_{layer}" if trait is None else f"{trait}:layer_{layer}": row
            for trait, rows in traits.items()
            for layer, row in rows.items()
        }
        named |= {"site": np.array(site)} if elsewhere else {}
        with whole(path, vectors.nbytes + 4096) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **named)
        return path
    if elsewhere:
        raise InputError(
            f"A .npy file of vectors of the site {site!r} was asked for; it holds numbers alone, "
            "and would be read as the residual's. Write .npz, .json or .safetensors."
        )
    layers = [layer for rows in traits.values() for layer in rows]
    if None not in traits or layers != list(range(layers[0], layers[0] + len(layers))):
        raise InputError(
            f"A .npy file of {list(traits)} with the layers {layers[:6]} was asked for; it has no "
            "labels, and takes one vector of consecutive layers. Write .npz or .safetensors."
        )
    table = np.stack([*traits[None].values()])
    with whole(path, vectors.nbytes + 4096) as part, part.open("wb") as file:
        np.save(file, table[0] if len(table) == 1 else table, allow_pickle=False)
    return path


def _text(values: np.ndarray) -> np.ndarray | str:
    return str(values) if values.dtype.kind == "U" and not values.ndim else values
