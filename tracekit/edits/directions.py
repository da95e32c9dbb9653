"""What an edit adds and how much of it: a direction a layer, an amount a row and layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed, require_blocks, require_layers
from tracekit.edits.positions import Rows
from tracekit.errors import InputError, InputTypeError, brief
from tracekit.model import sites
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import ids_of, own_names
from tracekit.transcripts.selection import AUTOMATIC
from tracekit.transcripts.tensors import prompt_hashes, require_transcripts

Amount = float | int | xr.DataArray
Vector = xr.DataArray | np.ndarray | torch.Tensor
PROMPT_IDS = "prompt_ids"


def wide(values: torch.Tensor) -> torch.Tensor:
    """The values in at least float32, in which edits compute; of a float64 model as they are."""
    return values if values.dtype == torch.float64 else values.float()


class Direction:
    """A float32 tensor, and its copies on the devices where it was needed."""

    def __init__(self, values: np.ndarray | float) -> None:
        # contiguous: torch refuses a view with negative strides, such as vector[::-1]
        self.values = torch.tensor(np.array(values, np.float32, order="C"))
        self._copies = {self.values.device: self.values}

    def on(self, device: torch.device) -> torch.Tensor:
        """The tensor on a device; the first call copies it there."""
        if device not in self._copies:
            self._copies[device] = self.values.to(device)
        return self._copies[device]


def labelled(vector: Any, layers: int | Sequence[int] | None) -> xr.DataArray:
    """A vector with its labels: a plain array (dim), or (layer, dim), acts at the layers given.

    Errors: `TypeError` for anything else, and for a plain array without its layers.
    """
    if isinstance(vector, xr.DataArray):
        return vector
    if isinstance(vector, str | os.PathLike):
        raise InputTypeError(
            f"The vector is the name {str(vector)!r}; an edit needs the values. Read them with "
            "tk.open (netCDF) or tk.read_vectors, and choose one trait."
        )
    values = vector.detach().float().cpu().numpy() if torch.is_tensor(vector) else vector
    count = None if layers is None else len(listed(layers) or [])
    numbers = isinstance(values, np.ndarray) and values.dtype.kind in "fiu"
    if not numbers or count is None or values.shape[:-1] not in ((), (count,)) or not values.ndim:
        raise InputTypeError(
            f"The vector is {brief(vector)} with layers={layers}; an edit needs a DataArray (dim) "
            "or (layer, dim), or a plain array (dim), or (layer, dim), with layers= to say where "
            "it acts."
        )
    if values.ndim == 1:
        return xr.DataArray(values, dims=("dim",))
    return xr.DataArray(values, dims=("layer", "dim"), coords={"layer": listed(layers)})


def per_prompt(transcripts: xr.Dataset, values: Sequence[float] | np.ndarray) -> xr.DataArray:
    """A number for each prompt, as `steer`, `ablate` and `clamp` take it: (prompt).

    It knows its prompts by their token ids, so that it never acts on another set's.

    Errors: `ValueError` for as many values as there are not prompts.

    >>> steered = tk.steer(model, vector, coefficient=per_prompt(runs, [0.0, 4.0, 8.0]))
    """
    require_transcripts(transcripts)
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != (transcripts.sizes["prompt"],):
        raise InputError(
            f"{transcripts.sizes['prompt']} prompts and values of shape {numbers.shape} were "
            "given; each prompt needs one number."
        )
    coords = {"prompt": ids_of(transcripts), PROMPT_IDS: ("prompt", prompt_hashes(transcripts))}
    return xr.DataArray(numbers, dims="prompt", coords=coords)


def directions(
    model: TransformersModel,
    vector: xr.DataArray,
    layers: int | Sequence[int] | None,
    unit: bool = True,
    bank: str | None = None,
    read: bool = False,
) -> dict[int, Direction]:
    """The direction at each layer asked for (by default the vector's own), of norm 1 if `unit`.

    With the dim `bank` they are several: (bank, dim). What is only `read` may be of layer −1, the
    embedding output.

    Errors: `ValueError` for dims other than (dim) or (layer, dim), for layers that the vector or
    the model lacks, and for a direction that is zero or not finite.
    """
    extra = [dim for dim in vector.dims if dim not in ("layer", "dim", bank)]
    if extra:
        # as a dictionary: xarray's own keyword `method` is in the way of the dim of that name
        choice = ", ".join(f"{dim!r}: {_first(vector, dim)}" for dim in extra)
        raise InputError(
            f"The vector has the dims {vector.dims}; an edit needs (dim) or (layer, dim). "
            f"Choose one, such as .sel({{{choice}}}), or steer each row along its own: "
            f"coefficient=tk.sweep(runs, […], {extra[0]}=[…]).coefficient."
        )
    if layers is None and "layer" not in vector.coords:
        raise InputError("The vector has no layer coordinate; name the layers with layers=.")
    chosen = listed(vector["layer"].values if layers is None else layers) or []
    if read:
        sites.check_layers(model, chosen, "residual")
    else:
        require_blocks(model, chosen)
    if "layer" in vector.dims:
        require_layers(vector, chosen)
    order = [dim for dim in (bank, "layer", "dim") if dim in vector.dims]
    vector = vector.transpose(*order)
    return {layer: Direction(_at(vector, layer, unit)) for layer in chosen}


class Amounts:
    """A number for all rows, or one each by `prompt`, by `layer`, or by both.

    Rows are matched by prompt id, and by token ids where the numbers know them (`per_prompt`,
    `sweep`).

    Errors: `ValueError` for other dims, repeated labels, layers that it lacks, values that are not
    finite (`finite=False`: not a number), and automatic prompt ids without token ids.
    """

    def __init__(
        self, name: str, value: Amount, layers: Collection[int], finite: bool = True
    ) -> None:
        self.name, self.value = name, value
        values = np.asarray(value, dtype=float)
        if values.ndim and not isinstance(value, xr.DataArray):
            raise InputError(
                f"{name} was given {values.size} numbers without labels; give one, or a DataArray "
                "over prompt or layer that says whose each is."
            )
        if not (np.isfinite(values) if finite else ~np.isnan(values)).all():
            raise InputError(f"{name}={values.tolist()} was asked for; it must be finite.")
        self._rows: dict[str, int] = {}
        self._hashes: list[str] = []
        if isinstance(value, xr.DataArray):
            self._table = self._labelled(value, layers)
        else:
            self._table = dict.fromkeys(layers, Direction(float(value)))

    def at(
        self, layer: int, rows: Rows | None, device: torch.device
    ) -> Float[torch.Tensor, "*row_column_dim"]:
        """The amounts at a layer: a scalar, or (row, 1, 1)."""
        values = self._table[layer].on(device)
        if not self._rows:
            return values
        if rows is None:
            raise InputError(
                f"{self.name} has a value per prompt, and this is a raw model.trace, which knows "
                "no prompts. Use tk.generate or tk.capture."
            )
        return values[self.places(rows)][:, None, None]

    def places(self, rows: Rows) -> list[int]:
        """Where each running row is among the prompts of the numbers.

        Errors: `ValueError` for a row without a number, or of other token ids.
        """
        places = [self._place(name) for name in rows.prompts]
        self._require_ids(places, rows)
        return places

    def described(self) -> Any:
        """The amounts as provenance records them: a number, or the range and a hash of a table."""
        if not isinstance(self.value, xr.DataArray):
            return _recorded(float(self.value))
        labels = [[str(dim), self.value[dim].values.tolist()] for dim in self.value.dims]
        values = self.value.values.astype(float)
        return {
            "by": [str(dim) for dim in self.value.dims],
            "range": [_recorded(values.min()), _recorded(values.max())],
            "hash": digest([labels, np.vectorize(str)(values).tolist()]),
        }

    def _labelled(self, value: xr.DataArray, layers: Collection[int]) -> dict[int, Direction]:
        other = [dim for dim in value.dims if dim not in ("prompt", "layer")]
        unlabelled = [dim for dim in value.dims if dim not in value.indexes]
        repeated = [dim for dim, index in value.indexes.items() if not index.is_unique]
        if other or unlabelled or repeated:
            raise InputError(
                f"{self.name} has the dims {value.dims} (without labels: {unlabelled}, with "
                f"repeated labels: {repeated}); it may have prompt and layer, each label once."
            )
        if "layer" in value.dims:
            require_layers(value, sorted(layers))
        if "prompt" in value.dims:
            self._rows = {str(name): n for n, name in enumerate(value["prompt"].values)}
            self._hashes = self._known(value)
        by_layer = "layer" in value.dims
        return {n: Direction((value.sel(layer=n) if by_layer else value).values) for n in layers}

    def _known(self, value: xr.DataArray) -> list[str]:
        if PROMPT_IDS in value.coords:
            return [str(known) for known in value[PROMPT_IDS].values]
        automatic = [name for name in self._rows if AUTOMATIC.fullmatch(name)]
        if automatic:
            raise InputError(
                f"{self.name} has a value per prompt, by ids such as {automatic[0]!r}, which any "
                "set has. Make it with tk.per_prompt(transcripts, values) or tk.sweep, which know "
                "the prompts' tokens, or give prompts ids of their own (tk.Prompt)."
            )
        return []

    def _require_ids(self, places: list[int], rows: Rows) -> None:
        if not self._hashes:
            return
        # a generated token's row was met at its prompt, and has no hash
        for n, (place, hashed) in enumerate(zip(places, rows.prompt_hashes, strict=False)):
            if hashed != self._hashes[place]:
                raise InputError(
                    f"{self.name} was made for a prompt {rows.prompts[n]!r} of other token ids. "
                    "Make it of the transcripts that are run: tk.per_prompt(transcripts, values)."
                )

    def _place(self, prompt: str) -> int:
        for name in own_names(prompt):
            if name in self._rows:
                return self._rows[name]
        raise InputError(
            f"{self.name} names {len(self._rows)} prompts and not {prompt!r}; give a value for "
            "every row."
        )


def hashed(at: Mapping[int, Direction]) -> str:
    """A short hash of the directions and their layers."""
    whole = hashlib.sha256()
    for layer in sorted(at):
        whole.update(f"{layer}:".encode() + at[layer].values.numpy().tobytes())
    return whole.hexdigest()[:16]


def _at(vector: xr.DataArray, layer: int, unit: bool) -> np.ndarray:
    here = vector.sel(layer=layer) if "layer" in vector.dims else vector
    values = np.asarray(here.values, np.float32)
    norm = np.linalg.norm(values.astype(float), axis=-1, keepdims=True)
    wrong = norm[~np.isfinite(norm) | (norm == 0)]
    if len(wrong):
        raise InputError(
            f"The vector at layer {layer} has the norm {wrong[0]}; a direction is finite and not "
            "zero."
        )
    return (values / norm).astype(np.float32) if unit else values


def _first(vector: xr.DataArray, dim: Any) -> str:
    return repr(vector[dim].values.tolist()[0]) if dim in vector.coords else "0"


def _recorded(value: float) -> float | str:
    return float(value) if np.isfinite(value) else str(value)  # JSON has no infinity
