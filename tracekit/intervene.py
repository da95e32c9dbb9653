"""Edited models: steer, ablate, clamp, patch. `generate` and `capture` take them like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from nnsight import TransformersModel

from tracekit.model import origin
from tracekit.sites import first
from tracekit.tensors import Batch

Tokens = str | slice
DEFAULT_TOKENS = slice(-1, None)
# (hidden, where, layer, rows) → hidden; `rows` is None in a raw trace
Change = Callable[[torch.Tensor, torch.Tensor, int, "Rows | None"], torch.Tensor]


class Rows:
    """The rows of the forward that is running, and the label of each of its columns."""

    def __init__(self, batch: Batch, step: int) -> None:
        width = batch.input_ids.shape[1]
        columns = torch.arange(width) if step == 0 else torch.tensor([width + step - 1])
        self.prompts = batch.prompts
        self.labels = columns[None] - batch.starts[:, None]
        self.real = batch.attention_mask.bool() if step == 0 else torch.ones_like(self.labels) > 0


@contextmanager
def rows_of(model: TransformersModel, batch: Batch) -> Iterator[None]:
    """Hands each row's response start to the edits of whatever runs inside."""
    module = model._module
    before = getattr(module, "tracekit_rows", None)
    module.tracekit_rows = batch
    try:
        yield
    finally:
        module.tracekit_rows = before


def edited_depth(model: TransformersModel) -> int:
    """The deepest block that an edit of this model touches; −1 without edits.

    An edit made with plain nnsight may touch any block, so it counts as the last.
    """
    known = model.__dict__.get("tracekit_edits", [])
    if len(model._edits) > len(known):
        return len(model.layers) - 1
    return max((layer for edit in known for layer in edit["layers"]), default=-1)


def steer(
    model: TransformersModel,
    vector: xr.DataArray,
    *,
    coefficient: float | xr.DataArray,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
) -> TransformersModel:
    """A copy of the model that adds `coefficient × vector` to the residual stream.

    `vector` (dim) acts at `layers` (by default at its `layer` coordinate); with a `layer` dim it
    acts at each of its layers. `coefficient` is a number, or a DataArray over `prompt` (one a
    row, so that a sweep is one generation). `tokens` are labels: by default the last prompt token
    and everything generated, so that the first generated token is influenced; "all" is every
    token. Source: activation addition, arXiv:2308.10248.

    Errors: `ValueError` for a vector or layers that do not fit, a coefficient that is not finite,
    and a remote model.

    >>> happy = steer(model, vectors.sel(trait="alignment/sycophancy", layer=12), coefficient=8.0)
    """
    at = _directions(model, vector, layers)
    _require_finite(coefficient)

    def change(hidden: Any, where: Any, layer: int, rows: Rows | None) -> torch.Tensor:
        amount = _per_row(coefficient, rows, hidden)
        shift = amount * at[layer].to(hidden.device)
        return torch.where(where, (hidden.float() + shift).to(hidden.dtype), hidden)

    return _edit(model, "steer", at, change, tokens, coefficient=_described(coefficient))


def ablate(
    model: TransformersModel,
    vector: xr.DataArray,
    *,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
    mean: float | xr.DataArray = 0.0,
) -> TransformersModel:
    """A copy of the model whose residual stream has no component along `vector`.

    With `mean` the component is set to that value (mean ablation); a DataArray over `layer` sets
    one a layer. Source: directional ablation, arXiv:2406.11717.
    """
    at = {layer: direction / direction.norm() for layer, direction in _with(model, vector, layers)}
    goal = {layer: float(_at_layer(mean, layer)) for layer in at}

    def change(hidden: Any, where: Any, layer: int, rows: Rows | None) -> torch.Tensor:
        return _move(hidden, where, at[layer], lambda along: torch.full_like(along, goal[layer]))

    return _edit(model, "ablate", at, change, tokens, mean=[goal[layer] for layer in at])


def clamp(
    model: TransformersModel,
    vector: xr.DataArray,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
) -> TransformersModel:
    """A copy of the model whose projection on the unit `vector` stays between `low` and `high`."""
    if not low <= high:
        raise ValueError(f"clamp was asked for low={low} and high={high}; low must not exceed it.")
    at = {layer: direction / direction.norm() for layer, direction in _with(model, vector, layers)}

    def change(hidden: Any, where: Any, layer: int, rows: Rows | None) -> torch.Tensor:
        return _move(hidden, where, at[layer], lambda along: along.clamp(low, high))

    return _edit(model, "clamp", at, change, tokens, bounds=[str(low), str(high)])


def patch(
    model: TransformersModel,
    traces: xr.DataArray,
    *,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = "all",
) -> TransformersModel:
    """A copy of the model whose residual stream is replaced by stored traces of the same ids.

    Where the traces have a value for a row's prompt, token and layer, it takes the place of the
    model's own; elsewhere (other tokens, holes) nothing changes.

    Errors: `ValueError` for traces of another width or layers they lack; when a row's prompt is
    not among them.
    """
    chosen = [int(x) for x in np.atleast_1d(traces["layer"].values if layers is None else layers)]
    _check_fit(model, traces, chosen)
    if "layer" not in traces.dims:
        traces = traces.expand_dims("layer")
    _require_layers(traces, chosen)
    stored = traces.transpose("layer", "prompt", "token", "dim")
    at = {layer: torch.as_tensor(stored.sel(layer=layer).values) for layer in chosen}
    axis = torch.as_tensor(traces["token"].values)
    place = {str(name): n for n, name in enumerate(traces["prompt"].values)}

    def change(hidden: Any, where: Any, layer: int, rows: Rows | None) -> torch.Tensor:
        assert rows is not None  # _where refuses a raw trace, since patch needs labels
        unknown = [name for name in rows.prompts if name not in place]
        if unknown:
            raise ValueError(f"patch has no traces of {unknown[0]!r}; capture them first.")
        order = torch.as_tensor([place[name] for name in rows.prompts])
        columns = torch.searchsorted(axis, rows.labels.contiguous()).clamp(max=len(axis) - 1)
        values = at[layer][order[:, None], columns].to(hidden.device)
        known = (axis[columns] == rows.labels).to(hidden.device) & ~values.isnan().any(-1)
        return torch.where(where & known[..., None], values.to(hidden.dtype), hidden)

    return _edit(model, "patch", at, change, tokens, labelled=True)


def _edit(
    model: TransformersModel,
    kind: str,
    at: dict[int, torch.Tensor],
    change: Change,
    tokens: Tokens,
    labelled: bool = False,
    **settings: Any,
) -> TransformersModel:
    about = origin(model)
    if about.weights == "remote":
        raise ValueError(
            f"{kind} was asked for on the remote model {about.name}: edits do not travel. "
            "Load the model here (remote=False)."
        )
    if not (tokens == "all" or isinstance(tokens, slice)):
        raise ValueError(f"tokens={tokens!r} was asked for; there are 'all' and slices of labels.")
    layers = sorted(at)
    with model.edit() as (tracer, edited):
        for step in tracer.iter[:]:
            for layer in layers:
                output = edited.layers[layer].output
                hidden = first(output)
                where, rows = _where(edited._module, hidden, tokens, step, labelled)
                new = change(hidden, where, layer, rows)
                edited.layers[layer].output = (
                    (new, *output[1:]) if isinstance(output, tuple) else new
                )
    named = tokens if isinstance(tokens, str) else f"{tokens.start}:{tokens.stop}"
    made = {"kind": kind, "vector": _hash(at), "layers": layers, "tokens": named, **settings}
    edited.tracekit_edits = [*model.__dict__.get("tracekit_edits", []), made]
    return edited


def _where(
    module: torch.nn.Module, hidden: torch.Tensor, tokens: Tokens, step: int, labelled: bool
) -> tuple[Bool[torch.Tensor, "row column 1"], Rows | None]:
    batch = getattr(module, "tracekit_rows", None)
    if batch is None:
        if tokens != "all" or labelled:
            raise ValueError(
                f"An edit at token labels {tokens} ran in a raw model.trace, where no row's "
                "response start is known. Use tk.generate or tk.capture, or tokens='all'."
            )
        return torch.ones(*hidden.shape[:2], 1, dtype=torch.bool, device=hidden.device), None
    rows = Rows(batch, step)
    chosen = rows.real
    if isinstance(tokens, slice):
        if tokens.start is not None:
            chosen = chosen & (rows.labels >= tokens.start)
        if tokens.stop is not None:
            chosen = chosen & (rows.labels <= tokens.stop)
    return chosen[..., None].to(hidden.device), rows


def _move(
    hidden: torch.Tensor,
    where: torch.Tensor,
    direction: torch.Tensor,
    goal: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    wide, direction = hidden.float(), direction.to(hidden.device)
    along = wide @ direction
    moved = wide + (goal(along) - along)[..., None] * direction
    return torch.where(where, moved.to(hidden.dtype), hidden)


def _directions(
    model: TransformersModel, vector: xr.DataArray, layers: Any
) -> dict[int, Float[torch.Tensor, dim]]:
    return dict(_with(model, vector, layers))


def _with(
    model: TransformersModel, vector: xr.DataArray, layers: int | Sequence[int] | None
) -> Iterator[tuple[int, torch.Tensor]]:
    extra = [dim for dim in vector.dims if dim not in ("layer", "dim")]
    if "dim" not in vector.dims or extra:
        raise ValueError(
            f"The vector has the dims {vector.dims}; it needs (dim) or (layer, dim). "
            "Choose one with .sel(trait=…, method=…)."
        )
    if layers is None and "layer" not in vector.coords:
        raise ValueError("The vector has no layer coordinate; name the layers with layers=.")
    chosen = [int(x) for x in np.atleast_1d(vector["layer"].values if layers is None else layers)]
    _check_fit(model, vector, chosen)
    if "layer" in vector.dims:
        _require_layers(vector, chosen)
    for layer in chosen:
        values = (vector.sel(layer=layer) if "layer" in vector.dims else vector).values
        if not np.isfinite(values).all() or not np.any(values):
            raise ValueError(f"The vector at layer {layer} is zero or not finite.")
        yield layer, torch.as_tensor(np.asarray(values, np.float32))


def _check_fit(model: TransformersModel, array: xr.DataArray, layers: Sequence[int]) -> None:
    depth, width = len(model.layers), model._module.config.get_text_config().hidden_size
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong or not layers:
        raise ValueError(f"Layers {wrong} were asked for; this model has blocks 0 to {depth - 1}.")
    if array.sizes["dim"] != width:
        raise ValueError(
            f"The vector has {array.sizes['dim']} dims and this model's residual stream {width}: "
            "it comes from another model."
        )


def _require_layers(array: xr.DataArray, layers: Sequence[int]) -> None:
    there = array["layer"].values.tolist()
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise ValueError(f"Layers {missing} are not in the array, which has {there}.")


def _per_row(
    coefficient: float | xr.DataArray, rows: Rows | None, hidden: torch.Tensor
) -> float | torch.Tensor:
    if not isinstance(coefficient, xr.DataArray):
        return coefficient
    if rows is None:
        raise ValueError("A coefficient per prompt needs tk.generate or tk.capture.")
    known = {str(name): n for n, name in enumerate(coefficient["prompt"].values)}
    missing = [name for name in rows.prompts if name not in known]
    if missing:
        raise ValueError(f"The coefficient names no prompt {missing[0]!r}; give one for each.")
    values = coefficient.values[[known[name] for name in rows.prompts]]
    return torch.as_tensor(values, dtype=torch.float32, device=hidden.device)[:, None, None]


def _require_finite(coefficient: float | xr.DataArray) -> None:
    values = np.asarray(coefficient, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"coefficient={values.tolist()} was asked for; it must be finite.")


def _at_layer(value: float | xr.DataArray, layer: int) -> Any:
    return value.sel(layer=layer) if isinstance(value, xr.DataArray) else value


def _described(coefficient: float | xr.DataArray) -> Any:
    if not isinstance(coefficient, xr.DataArray):
        return float(coefficient)
    return {
        str(p): float(v)
        for p, v in zip(coefficient["prompt"].values, coefficient.values, strict=True)
    }


def _hash(at: dict[int, torch.Tensor]) -> str:
    hashed = hashlib.sha256()
    for layer in sorted(at):
        hashed.update(str(layer).encode() + np.ascontiguousarray(at[layer].numpy()).tobytes())
    return hashed.hexdigest()[:16]
