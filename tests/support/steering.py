"""Edits written with plain forward hooks on the transformers module: what tracekit must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk

PROMPTS = [
    "Where is Paris?",
    "Tell me a long story about the sea, a boat, an old captain and his two cats, please.",
    "Hi",
    "List three colours that go well with dark green.",
]
NEW, LAYER = 10, 2
Acts = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def unit_vectors(model: TransformersModel, seed: int = 0) -> xr.DataArray:
    """Random unit vectors (layer, dim), without provenance."""
    shape = (len(model.layers), model._module.config.hidden_size)
    values = np.random.default_rng(seed).normal(size=shape)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    coords = {"layer": np.arange(shape[0], dtype=np.int32)}
    return xr.DataArray(values.astype(np.float32), dims=("layer", "dim"), coords=coords)


def hooked_ids(
    model: TransformersModel,
    transcripts: xr.Dataset,
    edits: Mapping[int, Acts],
    first: int | np.ndarray | None,
    max_new_tokens: int,
    part: str = "",
    before: bool = False,
    blocks: str = "model.layers",
) -> list[list[int]]:
    """Greedy ids by `module.generate` with hooks, one left-padded batch, tokens ≥ `first`.

    Each edit is a function of (hidden, whether it acts). `first` may be a boolean array (row,
    column) over the prompts and what is generated; `part` a module of the block by its path, whose
    output (`before`: input) is changed. Written apart from tracekit: the labels come from the
    prompt lengths, and the step from the width of what the hook sees.
    """
    module, tokenizer = model._module, model.tokenizer
    ids = transcripts.token_id.values
    mask = torch.tensor(ids >= 0)
    padded = torch.tensor(np.where(ids >= 0, ids, tokenizer.pad_token_id)).long()
    width = padded.shape[1]
    seen: dict[int, int] = {}
    where = first
    if not isinstance(where, np.ndarray):
        columns = np.arange(width + max_new_tokens) >= width + (-width if first is None else first)
        where = np.broadcast_to(columns, (len(ids), len(columns)))
    acting = torch.tensor(where)
    acting[:, :width] &= mask

    def hook(layer: int, act: Acts) -> Callable[..., Any]:
        def change(_: object, *given: Any) -> Any:
            output = given[-1]
            value = output[0] if isinstance(output, tuple) else output
            apart = value.reshape(len(ids), -1, value.shape[-1])  # OPT's MLP has them in one row
            past = seen.get(layer, 0)
            seen[layer] = past + apart.shape[1]
            new = act(apart, acting[:, past : seen[layer], None]).reshape(value.shape)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return change

    kind = f"register_forward{'_pre' if before else ''}_hook"
    handles = [
        getattr(module.get_submodule(f"{blocks}.{n}").get_submodule(part), kind)(hook(n, act))
        for n, act in edits.items()
    ]
    try:
        with torch.no_grad():
            made = module.generate(
                input_ids=padded,
                attention_mask=mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
            )
    finally:
        for handle in handles:
            handle.remove()
    return [trimmed(row, tokenizer.eos_token_id) for row in made[:, width:].tolist()]


def added(vector: np.ndarray, amount: float | list[float]) -> Acts:
    rows = torch.tensor(amount, dtype=torch.float32).reshape(-1, 1, 1)
    return lambda hidden, acts: torch.where(acts, hidden + rows * torch.tensor(vector), hidden)


def projected_out(vector: np.ndarray) -> Acts:
    direction = torch.tensor(vector)
    return lambda hidden, acts: torch.where(
        acts, hidden - (hidden @ direction)[..., None] * direction, hidden
    )


def clamped(vector: np.ndarray, low: float, high: float) -> Acts:
    direction = torch.tensor(vector)

    def act(hidden: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        along = hidden @ direction
        moved = hidden + (along.clamp(low, high) - along)[..., None] * direction
        return torch.where(acts, moved, hidden)

    return act


def response_ids(runs: xr.Dataset) -> list[list[int]]:
    said = runs.token_id.sel(token=slice(0, None)).values
    return [row[row >= 0].tolist() for row in said]


def trimmed(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def mean_norm(model: TransformersModel, runs: xr.Dataset, layer: int) -> float:
    traces = tk.capture(model, runs, [layer], progress=False)
    return float(np.sqrt((traces**2).sum("dim", skipna=False)).mean())
