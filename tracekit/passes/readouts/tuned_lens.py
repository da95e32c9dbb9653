"""Tuned lenses, read from their files: what each layer's residuals are turned into first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.storage.files import reading, unreadable

PARAMETERS = "params.pt"
_NAME = re.compile(r"(?:layer_translators\.)?(\d+)\.(weight|bias)")
_WANTED = "a tuned lens's tensors, '<number>.weight' (dim, dim) and '<number>.bias' (dim)"


@dataclass(frozen=True)
class TunedLens:
    """A change of the residuals of each layer, to what the last block would put out.

    `weights` and `biases` by layer, −1 being the embedding output. The last block's outputs are
    what is aimed at, and stay. `mark` is a hash of the file.
    """

    weights: Mapping[int, torch.Tensor]
    biases: Mapping[int, torch.Tensor]
    mark: str

    def translated(self, array: xr.DataArray, depth: int) -> xr.DataArray:
        """Residuals (…, layer, dim), each moved by its layer's translator: h + W h + b.

        Errors: `ValueError` for an array without layers, and for a layer that the lens lacks.
        """
        if "layer" not in array.coords:
            raise InputError(
                f"A tuned lens was given for an array over {array.dims} without a layer, and it "
                "has a translator for each. Keep the layer: traces.sel(layer=[12])."
            )
        if "layer" not in array.dims:
            return self.translated(array.expand_dims("layer"), depth).isel(layer=0)
        last = depth - 1
        layers = array["layer"].values.tolist()
        lacking = [n for n in layers if n != last and n not in self.weights]
        if lacking:
            raise InputError(
                f"Layers {lacking} were asked for; the tuned lens has {sorted(self.weights)}, and "
                f"{last} is what it aims at. Choose among them."
            )
        moved = [
            one if layer == last else self._moved(one, layer)
            for layer, one in zip(layers, array.transpose("layer", ..., "dim"), strict=True)
        ]
        joined = xr.concat(moved, "layer", combine_attrs="override")
        return joined.transpose(*array.dims).assign_attrs(array.attrs)

    def _moved(self, array: xr.DataArray, layer: int) -> xr.DataArray:
        values = torch.from_numpy(np.ascontiguousarray(array.values, np.float32))
        added = values @ self.weights[layer].float().T
        if layer in self.biases:
            added = added + self.biases[layer].float()
        return array.copy(data=(values + added).numpy())


def read_tuned_lens(path: str | Path, model: TransformersModel) -> TunedLens:
    """The tuned lens of a folder (params.pt beside config.json), or of its file, for this model.

    The translator 0 is of the embedding output (layer −1 here), n of block n − 1.

    Errors: `FileNotFoundError`; `ValueError` for a file that is damaged or holds anything else, and
    for a lens of another width or depth.
    Source: Belrose et al., arXiv:2303.08112, and the files that its package `tuned-lens` writes.
    """
    file = Path(path) / PARAMETERS if Path(path).is_dir() else Path(path)
    content = _loaded(file)
    weights: dict[int, torch.Tensor] = {}
    biases: dict[int, torch.Tensor] = {}
    for name, value in content.items():
        found = _NAME.fullmatch(str(name))
        if found is None or not isinstance(value, torch.Tensor):
            raise unreadable(file, f"it has {str(name)!r}", f"Give {_WANTED}.")
        if not bool(value.isfinite().all()):
            raise unreadable(file, f"{name} has values that are not finite", f"Give {_WANTED}.")
        (weights if found[2] == "weight" else biases)[int(found[1]) - 1] = value
    config = model._module.config.get_text_config()
    wide, shapes = config.hidden_size, {tuple(value.shape) for value in weights.values()}
    if shapes != {(wide, wide)} or len(weights) != len(model.layers):
        raise InputError(
            f"The tuned lens {str(file)!r} was given; it has {len(weights)} translators of "
            f"{sorted(shapes)}, and this model {len(model.layers)} blocks of {wide} dims. Give the "
            "lens of this model."
        )
    return TunedLens(weights, biases, hashlib.sha256(file.read_bytes()).hexdigest()[:16])


def _loaded(file: Path) -> Mapping[str, Any]:
    with reading(file):
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping) or not content:
        raise unreadable(file, f"it holds {type(content).__name__}", f"Give {_WANTED}.")
    return content
