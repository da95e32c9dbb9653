"""Probes as files of tensors: safetensors with metadata, and directions of other tools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import reading, whole
from tracekit.storage.provenance import read as provenance_of
from traits.probes import record

# what a file of tensors keeps beside them, in its metadata
_ATTRIBUTES = ("method", "pooling", "tokens", "rows", "class_weight", "classes")
_NUMBERS = ("threshold", "threshold_fpr", "calibration")
_ROWS = ("part", "part_group", "part_ids")
KIND = "tracekit probe"


def write_probe(probe: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a probe as safetensors, for tools without netCDF; returns the path.

    Tensors: `weight`, `offset`, what else its score is made of, `threshold`, `threshold_fpr` and
    `calibration`, in the Dataset's shapes. The metadata hold the layers, targets, method, pooling,
    tokens, classes, provenance, and which prompts fitted and chose it, as JSON texts. What else the
    fit reports about itself (counts, the selection) stays in the file of `tk.save`.

    Errors: `ValueError` for what is no probe.

    >>> path = write_probe(probe, Path("probe.safetensors"))
    >>> read_probe(path).layer.item()
    12
    """
    from safetensors.numpy import save  # with torch only where it is used

    read, path = record.read(probe), Path(path)
    tensors = {
        name: np.asarray(probe[name].values, order="C")
        for name in (*read.parameters, *_NUMBERS)
        if name in probe
    }
    about: dict[str, Any] = {
        "kind": KIND,
        "layers": list(read.layers),
        "targets": None if read.targets is None else list(read.targets),
        "rows": _rows(probe),
        "attributes": {n: str(probe.attrs[n]) for n in _ATTRIBUTES if n in probe.attrs},
        "provenance": provenance_of(probe) if "provenance" in probe.attrs else None,
    }
    packed = save(tensors, {name: json.dumps(value) for name, value in about.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, len(packed)) as part:
        part.write_bytes(packed)
    return path


def read_probe(path: str | os.PathLike[str], *, layer: int | None = None) -> xr.Dataset:
    """A probe of a file: one that `write_probe` wrote, or a direction of another tool.

    A `.pt` or `.safetensors` file with one tensor (dim,), or with `weight` (dim) and `offset` or
    `bias`, needs the `layer` whose residual stream it reads; its offset is 0 where it has none,
    its pooling the mean and its model not known.

    Errors: `ValueError` for files of anything else, and without a `layer` where it is due.

    >>> torch.save(torch.ones(32), "direction.pt")
    >>> read_probe("direction.pt", layer=12).offset.item()
    0.0
    """
    path = Path(path)
    tensors, about = _of_pt(path) if path.suffix in (".pt", ".pth") else _of_safetensors(path)
    if json.loads(about.get("kind", "null")) != KIND:
        return _of_direction(path, tensors, layer)
    given = {name: json.loads(value) for name, value in about.items()}
    targets = given["targets"]
    parameters = {
        name: tensors[name] if targets else tensors[name][None]
        for name in record.DIMS
        if name in tensors
    }
    made = record.written(
        parameters, given["layers"], targets, given["attributes"], given["provenance"] or {}
    )
    numbers = {name: made[name].copy(data=tensors[name]) for name in _NUMBERS if name in tensors}
    return made.assign(numbers).merge(_with_rows(given.get("rows") or {}))


def _rows(probe: xr.Dataset) -> dict[str, list[str]]:
    """What tells the prompts of its parts again, by name: texts along `prompt`."""
    if "part" not in probe:
        return {}
    there = ["prompt", *(name for name in _ROWS if name in probe)]
    return {name: probe[name].values.astype(str).tolist() for name in there}


def _with_rows(rows: dict[str, list[str]]) -> xr.Dataset:
    named = {name: ("prompt", np.array(texts, np.str_)) for name, texts in rows.items()}
    return xr.Dataset(named).set_coords([name for name in named if name == "prompt"])


def _of_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import safe_open

    with reading(path), safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def _of_pt(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import torch

    with reading(path):
        held = torch.load(path, map_location="cpu", weights_only=True)
    held = held if isinstance(held, dict) else {"weight": held}
    tensors = {n: v for n, v in held.items() if isinstance(v, torch.Tensor)}
    return {str(n): v.detach().float().numpy() for n, v in tensors.items()}, {}


def _of_direction(path: Path, tensors: dict[str, np.ndarray], layer: int | None) -> xr.Dataset:
    named = dict(tensors)
    offset = named.pop("offset", named.pop("bias", np.zeros(1)))
    weight = np.squeeze(next(iter(named.values()))) if len(named) == 1 else np.empty(0)
    if weight.ndim != 1 or not weight.size or np.size(offset) != 1 or layer is None:
        shapes = {name: value.shape for name, value in tensors.items()}
        raise InputError(
            f"{str(path)!r} was asked for as a probe of layer={layer}, and holds {shapes}. A file "
            "of another tool holds one direction (dim,), with an offset or none, and needs layer=."
        )
    given = {"weight": weight[None], "offset": np.ravel(offset).astype(float)}
    about = {"made_by": "traits.read_probe", "file": path.name, "site": "residual", "source": None}
    attributes = {"method": "unknown", "pooling": "mean"}
    return record.written(given, [layer], None, attributes, about)
