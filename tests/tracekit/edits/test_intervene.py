"""Edits against plain forward hooks, id for id; and replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import LAYER, NEW


def _edited(kind: str, model: TransformersModel, vector: xr.DataArray, norm: float) -> tuple:
    values = vector.values
    if kind == "add":
        edit = tk.steer(model, vector, coefficient=2 * norm)
        return edit, steering.added(values, 2 * norm), steering.added(values, 1.0 * norm)
    if kind == "project out":
        edit = tk.ablate(model, vector)
        return edit, steering.projected_out(values), steering.projected_out(-np.roll(values, 1))
    low, high = 1.5 * norm, 2 * norm
    edit = tk.clamp(model, vector, low=low, high=high)
    return (
        edit,
        steering.clamped(values, low, high),
        steering.clamped(values, -2 * norm, -1.5 * norm),
    )


@pytest.mark.parametrize("kind", ["add", "project out", "clamp"])
def test_generation_equals_hooks_id_for_id(
    kind: str,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vectors: xr.DataArray,
    norm: float,
) -> None:
    edited, same, other = _edited(kind, tiny_llama, vectors.sel(layer=LAYER), norm)
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, progress=False))
    assert said == steering.hooked_ids(tiny_llama, asked, {LAYER: same}, -1, NEW)
    assert said != steering.hooked_ids(tiny_llama, asked, {LAYER: other}, -1, NEW)
    assert said != steering.response_ids(plain)
    unbatched = [
        tk.generate(edited, tk.encode(tiny_llama, [text]), max_new_tokens=NEW, progress=False)
        for text in steering.PROMPTS
    ]
    assert said == [steering.response_ids(run)[0] for run in unbatched]


def test_an_edit_at_every_layer_equals_hooks(
    tiny_llama: TransformersModel, asked: xr.Dataset, vectors: xr.DataArray, norm: float
) -> None:
    edited = tk.ablate(tiny_llama, vectors, tokens="all")
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, progress=False))
    acts = {n: steering.projected_out(vectors.sel(layer=n).values) for n in range(4)}
    assert said == steering.hooked_ids(tiny_llama, asked, acts, None, NEW)
    del acts[1]
    assert said != steering.hooked_ids(tiny_llama, asked, acts, None, NEW)


@pytest.mark.parametrize("kind", ["add", "project out", "clamp"])
def test_replay_of_a_steered_run_equals_what_generation_computed(
    kind: str, tiny_llama: TransformersModel, vectors: xr.DataArray, norm: float
) -> None:
    edited, _, _ = _edited(kind, tiny_llama, vectors.sel(layer=LAYER), norm)
    asked = tk.encode(tiny_llama, steering.PROMPTS)
    with tracked(tiny_llama, LAYER + 1) as during:
        runs = tk.generate(edited, asked, max_new_tokens=NEW, token_budget=4096, progress=False)
    # one left-padded batch, longest row first: the last column of every forward
    order = np.argsort(-runs.prompt_length.values, kind="stable")
    computed = np.stack([step[:, -1].numpy() for step in during], 1)[np.argsort(order)]
    replayed, unedited = (
        tk.capture(m, runs, [LAYER + 1], tokens="all", progress=False)
        .isel(layer=0)
        .sel(token=slice(-1, NEW - 2))
        .transpose("prompt", "token", "dim")
        .values
        for m in (edited, tiny_llama)
    )
    said = np.isfinite(replayed).all(-1)
    computed = computed[:, : said.shape[1]]
    assert said.sum(1).min() > 1
    scale = np.linalg.norm(computed, axis=-1)
    gap, off = (np.linalg.norm(x - computed, axis=-1) / scale for x in (replayed, unedited))
    assert gap[said].max() < 1e-4
    assert off[said].min() > 1e-4


class tracked:  # noqa: N801
    """What a block puts out in each forward, by a plain hook."""

    def __init__(self, model: TransformersModel, layer: int) -> None:
        self.block, self.seen = model._module.model.layers[layer], []

    def __enter__(self) -> list[torch.Tensor]:
        self.handle = self.block.register_forward_hook(
            lambda _, __, output: self.seen.append(output.detach().clone())
        )
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.handle.remove()
