"""Vectors to and from other tools' files: safetensors, GGUF control vectors, `.pt` dictionaries."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save_file

from tracekit.provenance import stamp

ARCHITECTURE = "controlvector"


def write_gguf(vector: xr.DataArray, path: str | Path, model_type: str) -> Path:
    """A control vector (layer, dim) in the GGUF form that llama.cpp and repeng read.

    One float32 tensor `direction.<layer>` for each layer, added to that block's output.
    `model_type` is the model's architecture as transformers names it, such as "llama". That form
    has no layer 0 (llama.cpp refuses it), so the vector must not either.
    Source: repeng's `export_gguf`, llama.cpp's control vectors (pull request 5970).

    Errors: `ValueError` for other dims, no layers, and layers below 1.

    >>> write_gguf(vectors.sel(trait="alignment/honesty", layer=slice(1, None)), "h.gguf", "llama")
    PosixPath('h.gguf')
    """
    values = _by_layer(vector)
    low = [layer for layer in values if layer < 1]
    if low or not values:
        raise ValueError(
            f"A GGUF control vector of the layers {list(values)} was asked for; it holds layers "
            f"from 1 on, not {low}. Select vector.sel(layer=slice(1, None))."
        )
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(values))
    writer.add_string("tracekit.provenance", _provenance(vector))
    for layer, direction in values.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def read_gguf(path: str | Path) -> xr.DataArray:
    """The control vector (layer, dim) of a GGUF file, written here or by repeng.

    The attribute `model_type` is the file's hint.

    Errors: `FileNotFoundError`, and `ValueError` for a GGUF file of another kind.

    >>> read_gguf("h.gguf").dims
    ('layer', 'dim')
    """
    reader = gguf.GGUFReader(_existing(path))
    kind = _text(reader, "general.architecture")
    tensors = {t.name.removeprefix("direction."): t.data for t in reader.tensors}
    if kind != ARCHITECTURE or not tensors or not all(name.isdigit() for name in tensors):
        raise ValueError(
            f"{str(path)!r} is a GGUF file of architecture {kind!r} with the tensors "
            f"{[t.name for t in reader.tensors[:3]]}; a control vector ({ARCHITECTURE!r}, "
            "direction.1, direction.2, …) was expected."
        )
    array = _assembled({int(name): np.array(data) for name, data in tensors.items()}, path)
    kept = _text(reader, "tracekit.provenance")
    if kept:
        array.attrs["provenance"] = kept
    return array.assign_attrs(model_type=_text(reader, f"{ARCHITECTURE}.model_hint"))


def write_safetensors(vectors: xr.DataArray, path: str | Path) -> Path:
    """Vectors (…, layer, dim) as one float32 tensor (layer, dim) for each label of the other dims.

    A tensor is named by its labels, joined by `:` (`alignment/sycophancy:mean_diff`); layers, the
    names of the dims and the provenance are in the file's metadata.

    Errors: `ValueError` when layer or dim is missing.

    >>> write_safetensors(vectors, "vectors.safetensors")
    PosixPath('vectors.safetensors')
    """
    outer = [str(dim) for dim in vectors.dims if dim not in ("layer", "dim")]
    if set(vectors.dims) != {*outer, "layer", "dim"}:
        raise ValueError(f"Vectors (…, layer, dim) are needed; these have the dims {vectors.dims}.")
    flat = vectors.stack(_row=outer) if outer else vectors.expand_dims(_row=[("vector",)])
    flat = flat.transpose("_row", "layer", "dim")
    labels = [tuple(str(part) for part in row) for row in flat["_row"].values.tolist()]
    values = torch.tensor(np.asarray(flat.values, np.float32))
    tensors = {":".join(row): values[n].clone() for n, row in enumerate(labels)}
    layers = [int(layer) for layer in vectors["layer"].values]
    about = {"dims": outer, "labels": labels, "layers": layers}
    metadata = {"tracekit": json.dumps(about), "provenance": _provenance(vectors)}
    save_file(tensors, str(path), metadata)
    return Path(path)


def read_safetensors(path: str | Path) -> xr.DataArray:
    """The vectors that `write_safetensors` wrote, labels and provenance included.

    Errors: `FileNotFoundError`, and `ValueError` for a file without those labels.

    >>> read_safetensors("vectors.safetensors").dims
    ('trait', 'method', 'layer', 'dim')
    """
    with safe_open(_existing(path), "pt") as file:
        metadata = file.metadata() or {}
        if "tracekit" not in metadata:
            raise ValueError(
                f"{str(path)!r} holds the tensors {list(file.keys())[:3]} and no labels (metadata "
                f"{sorted(metadata)}): write_safetensors did not make it. Label it by hand."
            )
        about = json.loads(metadata["tracekit"])
        rows = [file.get_tensor(":".join(row)).numpy() for row in about["labels"]]
    values = np.stack(rows)
    coords = {"layer": np.asarray(about["layers"], np.int32), "dim": np.arange(values.shape[-1])}
    made = xr.DataArray(values, dims=("_row", "layer", "dim"), coords=coords)
    dims = about["dims"]
    columns = dict(zip(dims, zip(*about["labels"], strict=True), strict=True)) if dims else {}
    sizes = {dim: list(dict.fromkeys(labels)) for dim, labels in columns.items()}
    shape = tuple(len(labels) for labels in sizes.values())
    array = xr.DataArray(
        made.values.reshape(*shape, *values.shape[1:]),
        dims=(*dims, "layer", "dim"),
        coords={**coords, **sizes},
    )
    return array.assign_attrs(provenance=metadata["provenance"])


def read_pt(path: str | Path) -> xr.DataArray:
    """The vector (layer, dim) of a `.pt` file of persona_vectors or steering-vectors.

    Read with `weights_only=True`, so no code runs. A dictionary from layer to (dim) keeps its
    layers (0 is the first block). A table of hidden states (layer, dim) begins with the embedding
    output, layer −1; its last row, which transformers norms, is no residual and is left out.

    Errors: `FileNotFoundError`; `ValueError` for a file that holds other objects.

    >>> read_pt("sycophantic_response_avg_diff.pt").layer.values[:3].tolist()
    [-1, 0, 1]
    """
    try:
        content = torch.load(_existing(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} holds objects other than tensors, which could run code on reading: "
            f"{str(error).splitlines()[0]} Save its tensors as a dictionary from layer to tensor."
        ) from error
    if isinstance(content, torch.Tensor) and content.ndim == 2 and len(content) > 1:
        table = content.float().numpy()
        return _assembled({n - 1: row for n, row in enumerate(table[:-1])}, path)
    if isinstance(content, Mapping) and "layer_activations" in content:
        content = content["layer_activations"]
    return _assembled(_layers_of(content, path), path)


def _layers_of(content: Any, path: str | Path) -> dict[int, np.ndarray]:
    items = content.items() if isinstance(content, Mapping) else []
    found = {
        int(str(key).rpartition("_")[2]): value.float().flatten().numpy()
        for key, value in items
        if str(key).rpartition("_")[2].isdigit() and isinstance(value, torch.Tensor)
    }
    if not found or len(found) < len(items) or len({len(row) for row in found.values()}) > 1:
        shown = sorted(map(str, content))[:4] if isinstance(content, Mapping) else type(content)
        raise ValueError(
            f"{str(path)!r} holds {shown}; a dictionary from layer to a tensor (dim), or a table "
            "of hidden states (layer, dim), was expected."
        )
    return found


def _assembled(rows: Mapping[int, np.ndarray], path: str | Path) -> xr.DataArray:
    layers = sorted(rows)
    values = np.stack([rows[layer] for layer in layers]).astype(np.float32)
    coords = {"layer": np.asarray(layers, np.int32), "dim": np.arange(values.shape[-1])}
    array = xr.DataArray(values, dims=("layer", "dim"), coords=coords, name="vector")
    return stamp(array, {"made_by": "tracekit.interchange", "file": Path(path).name})


def _by_layer(vector: xr.DataArray) -> dict[int, np.ndarray]:
    if set(vector.dims) != {"layer", "dim"}:
        raise ValueError(
            f"A control vector has the dims (layer, dim); this one has {vector.dims}. "
            "Choose one with .sel({'trait': …, 'method': …})."
        )
    table = np.ascontiguousarray(vector.transpose("layer", "dim").values, np.float32)
    return {int(layer): row for layer, row in zip(vector["layer"].values, table, strict=True)}


def _provenance(array: xr.DataArray) -> str:
    return str(array.attrs.get("provenance", json.dumps({"source": None})))


def _text(reader: gguf.GGUFReader, name: str) -> str:
    field = reader.get_field(name)
    return "" if field is None else bytes(field.parts[-1]).decode()


def _existing(path: str | Path) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a file of vectors.")
    return str(path)
