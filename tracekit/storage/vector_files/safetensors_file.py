"""Labelled vectors as safetensors: every reader sees the tensors, this one the labels as well."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors.numpy import load, save

from tracekit.errors import InputError, InputTypeError
from tracekit.storage.files import reading
from tracekit.storage.former_names import renamed
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files.arguments import Given, refuse_given
from tracekit.storage.vector_files.conventions import labelled, require_floats
from tracekit.storage.vector_files.marked import BLANK, KEY, read_marked, write_marked
from tracekit.storage.vector_files.vector_labels import (
    provenance_of,
    require_writable,
    with_layers,
)


def write_safetensors(vectors: xr.DataArray, path: str | Path) -> Path:
    """Vectors (…, layer, dim) as one float32 tensor (layer, dim) for each label of the other dims.

    A tensor is named by its labels, joined by `:` (`alignment/sycophancy:mean_diff`). Layers, dims,
    all other coordinates (a scalar `trait`, say), attributes, the provenance and a checksum of the
    file are in its metadata.

    Errors: `ValueError` when layer or dim is missing, layers have no labels, two tensors would
    have one name, or values are not finite; `TypeError` for labels that JSON cannot hold.

    >>> write_safetensors(vectors, "vectors.safetensors")
    PosixPath('vectors.safetensors')
    """
    vectors = with_layers(vectors)
    outer = [str(dim) for dim in vectors.dims if dim not in ("layer", "dim")]
    if set(vectors.dims) != {*outer, "layer", "dim"}:
        raise InputError(f"Vectors (…, layer, dim) are needed; these have the dims {vectors.dims}.")
    require_writable(vectors)
    labels = list(itertools.product(*(vectors[dim].values.tolist() for dim in outer)))
    names = [_name(row) for row in labels]
    if len(set(names)) < len(names):
        raise InputError(
            f"Vectors with the labels {labels[:3]} … were to be written; joined by ':' two of "
            "these are one name. Give each vector labels of its own."
        )
    ordered = vectors.transpose(*outer, "layer", "dim")
    shape = (len(labels), vectors.sizes["layer"], vectors.sizes["dim"])
    values = np.asarray(ordered.values, np.float32).reshape(shape)
    tensors = {name: np.ascontiguousarray(rows) for name, rows in zip(names, values, strict=True)}
    about = _about(vectors, outer) | {"dims": outer, "labels": labels}
    metadata = {
        "tracekit": json.dumps(about),
        "provenance": provenance_of(vectors),
        KEY: BLANK,
    }
    content = save(tensors, metadata)
    return write_marked(Path(path), len(content), lambda part: part.write_bytes(content))


def read_safetensors(
    path: str | Path,
    *,
    layer: int | None = None,
    first_layer: int | None = None,
    depth: int | None = None,
    site: str | None = None,
) -> xr.DataArray:
    """The vectors that `write_safetensors` wrote, labels and provenance included.

    A file of another tool is read as a `.pt` file is: tensors by layer or by trait, or one that
    `layer`, `first_layer` or `depth` says the layers of.

    Errors: `FileNotFoundError`, and `ValueError` for a file that is damaged, or does not say which
    layers it is of.

    >>> read_safetensors(write_safetensors(vectors, "vectors.safetensors")).dims
    ('trait', 'layer', 'dim')
    """
    path, content = Path(path), read_marked(path)
    given = Given(layer, first_layer, depth, site)
    with reading(path):
        metadata = _metadata(content)
        if "tracekit" not in metadata:
            return labelled(path, _tensors(path, content), given)
        refuse_given(path, given)
        vectors = _labelled(json.loads(metadata["tracekit"]), load(content))
        return stamp(renamed(vectors), json.loads(metadata["provenance"]))


def _tensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """The tensors of another tool; numpy has no bfloat16, in which many are kept."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if not any(about.get("dtype") == "BF16" for about in header.values()):
        return {name: require_floats(path, values) for name, values in load(content).items()}
    import torch
    from safetensors.torch import load as load_torch

    tensors = load_torch(content)
    return {name: tensor.to(torch.float32).numpy() for name, tensor in tensors.items()}


def _name(row: Sequence[Any]) -> str:
    return ":".join(map(str, row)) or "vector"


def _about(vectors: xr.DataArray, outer: Sequence[str]) -> dict[str, Any]:
    own = {*outer, "layer"}
    if "dim" in vectors.coords and vectors["dim"].values.tolist() == [*range(vectors.sizes["dim"])]:
        own.add("dim")
    beside = {str(name): c for name, c in vectors.coords.items() if name not in own}
    unknown = [name for name, c in beside.items() if c.dtype.kind not in "iufbU"]
    if unknown:
        raise InputTypeError(
            f"The coordinates {unknown} hold objects. Drop them, or make them text."
        )
    attrs = {str(k): v.item() if hasattr(v, "item") else v for k, v in vectors.attrs.items()}
    attrs.pop("provenance", None)
    return {
        "layers": vectors["layer"].values.tolist(),
        "name": vectors.name,
        "attrs": attrs,
        "beside": {n: [c.dims, c.dtype.str, c.values.tolist()] for n, c in beside.items()},
    }


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def _labelled(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> xr.DataArray:
    rows = [tensors[_name(row)] for row in about["labels"]]
    values = np.stack(rows)
    if values.dtype != np.float32 or not np.isfinite(values).all():
        raise InputError(f"values of {values.dtype}, or such that are not finite")
    # files of older versions have no more than dims, labels and layers
    columns = zip(about["dims"], zip(*about["labels"], strict=True), strict=True)
    outer = {dim: list(dict.fromkeys(labels)) for dim, labels in columns} if about["dims"] else {}
    shape = [*map(len, outer.values())]
    if math.prod(shape) != len(rows) or len(tensors) != len(rows):
        raise InputError(f"{len(tensors)} tensors for {len(rows)} labels")
    coords: dict[str, Any] = {
        **outer,
        "layer": np.asarray(about["layers"], np.int32),
        "dim": np.arange(values.shape[-1]),
    }
    for name, (dims, kind, held) in about.get("beside", {}).items():
        coords[name] = (tuple(dims), np.asarray(held, np.dtype(kind)))
    return xr.DataArray(
        values.reshape(*shape, *values.shape[1:]),
        dims=(*outer, "layer", "dim"),
        coords=coords,
        name=about.get("name"),
        attrs=about.get("attrs", {}),
    )
