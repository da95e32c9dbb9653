"""Steps of a generation keep their labels, with a cache, told to have none, or without one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

import tracekit as tk
from tests.support.models.tiny import spread
from tests.support.oracles import probes
from tracekit.edits.positions import Rows
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.tensors import batch

NEW, LAYER, DIM = 4, 1, 32
TEXTS = ["Where is Paris on the map of France?", "Hello", "One, two, three"]


@pytest.fixture(scope="module", params=["told to have none", "without one"])
def model(request: pytest.FixtureRequest, tiny_folder: Path, words: Any) -> Any:
    if request.param == "told to have none":  # as gradient checkpointing leaves a checkpoint
        model = tk.load(tiny_folder, dtype="float32", tokenizer=words)
        model._module.config.use_cache = model._module.generation_config.use_cache = False
        return model
    config = OpenAIGPTConfig(vocab_size=len(words), n_embd=DIM, n_layer=3, n_head=4, n_positions=64)
    torch.manual_seed(0)
    module = OpenAIGPTLMHeadModel(config).eval()
    spread(module, torch.Generator().manual_seed(0))
    return tk.load(module, tokenizer=words, dtype="float32", check=False)


@pytest.fixture(scope="module")
def prompts(model: Any) -> xr.Dataset:
    return tk.encode(model, TEXTS, template="raw")


@pytest.fixture(scope="module")
def vector() -> xr.DataArray:
    values = torch.randn(DIM, generator=torch.Generator().manual_seed(5)).numpy()
    return xr.DataArray(values, dims="dim", coords={"layer": LAYER})


def blocks(module: Any) -> Any:
    return module.model.layers if hasattr(module, "model") else module.transformer.h


def by_hand(module: Any, prompts: xr.Dataset, change: Any) -> list[list[int]]:
    """Each row alone, a whole forward a token; `change(row, hidden)` edits after the block."""
    said = []
    for row, ids in enumerate(prompts.token_id.transpose("prompt", "token").values):
        ids = ids[ids >= 0].tolist()
        start = len(ids)

        def hook(_: Any, args: Any, out: Any, row: int = row) -> Any:
            many = isinstance(out, tuple | list)
            new = change(row, (out[0] if many else out).clone())
            return type(out)([new, *out[1:]]) if many else new

        handle = blocks(module)[LAYER].register_forward_hook(hook)
        with torch.no_grad():
            for _ in range(NEW):
                logits = module(input_ids=torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
        handle.remove()
        said.append(ids[start:])
    return said


def responses(runs: xr.Dataset) -> list[list[int]]:
    after = runs.sel(token=slice(0, None)).token_id.transpose("prompt", "token").values
    return [row[row >= 0].tolist() for row in after]


@pytest.mark.parametrize("tokens", [slice(-1, None), slice(1, 2), slice(-2, -1)])
def test_steering_at_labels_equals_hooks(
    tokens: slice, model: Any, prompts: xr.Dataset, vector: xr.DataArray
) -> None:
    lengths, add = prompts.prompt_length.values, 6 * torch.as_tensor(vector.values)
    start, stop = tokens.start, 99 if tokens.stop is None else tokens.stop

    def change(row: int, hidden: torch.Tensor, shift: int = 0) -> torch.Tensor:
        labels = torch.arange(hidden.shape[1]) - int(lengths[row]) + shift
        hidden[:, (labels >= start) & (labels <= stop)] += add
        return hidden

    steered = tk.steer(model, vector, coefficient=6.0, tokens=tokens, transfer=True)
    said = responses(tk.generate(steered, prompts, max_new_tokens=NEW, progress=False))
    assert said == by_hand(model._module, prompts, change)
    assert said != by_hand(model._module, prompts, lambda row, hidden: hidden)
    assert said != by_hand(model._module, prompts, lambda row, hidden: change(row, hidden, 1))


def test_capture_during_equals_the_replay(model: Any, prompts: xr.Dataset) -> None:
    runs, during = tk.capture_during(
        model, prompts, [0, LAYER], max_new_tokens=NEW, progress=False, repetition_penalty=1.01
    )
    replay = tk.capture(model, runs, [0, LAYER], progress=False)
    replay = replay.sel(prompt=during.prompt, token=during.token)
    there = np.isfinite(during.values)
    assert there.sum() == len(TEXTS) * NEW * 2 * DIM  # the last prompt token, all but the last new
    np.testing.assert_allclose(during.values[there], replay.values[there], atol=1e-4)
    moved = np.roll(during.values, 1, axis=1)
    assert not np.allclose(moved[there], replay.values[there], atol=1e-4)


def test_a_monitor_says_what_the_replay_says(model: Any, prompts: xr.Dataset) -> None:
    traces = tk.capture(model, prompts, tokens="all", progress=False)
    probe = probes.made(traces, layer=LAYER, pooling="ema(decay=0.8, take='max')")
    runs = tk.generate(model, prompts, max_new_tokens=NEW, monitor=probe, progress=False)
    assert responses(runs) == responses(tk.generate(model, prompts, max_new_tokens=NEW))
    replay = tk.capture(model, runs, probes=probe, progress=False).sel(probe="probe")
    during = runs.score.sel(token=slice(-1, None)).values
    there = np.isfinite(during)
    assert there.sum() == len(TEXTS) * NEW
    np.testing.assert_allclose(during[there], replay.values[there], atol=1e-4)
    before = replay.where(there)
    pooled = tk.pool(before, probe.attrs["pooling"])
    np.testing.assert_allclose(runs.score_so_far.sel(token=NEW - 2), pooled, atol=1e-4)
    assert not np.allclose(runs.score_so_far.sel(token=NEW - 3), pooled, atol=1e-4)


def test_a_patched_prompt_stays_patched(model: Any, prompts: xr.Dataset) -> None:
    traces = tk.capture(model, prompts, [LAYER], tokens="all", progress=False)
    other = -3 * traces.roll(dim=1, roll_coords=False)
    other.attrs = traces.attrs
    place = {name: n for n, name in enumerate(ids_of(prompts))}

    def change(row: int, hidden: torch.Tensor) -> torch.Tensor:
        values = other.isel(prompt=row, layer=0).transpose("token", "dim").values
        values = torch.as_tensor(values[~np.isnan(values[:, 0])])
        hidden[0, : len(values)] = values
        return hidden

    assert list(place) == [str(name) for name in other.prompt.values]
    patched = tk.patch(model, other, tokens=slice(None, -1))
    said = responses(tk.generate(patched, prompts, max_new_tokens=NEW, progress=False))
    assert said == by_hand(model._module, prompts, change)
    assert said != by_hand(model._module, prompts, lambda row, hidden: hidden)


def test_a_width_that_no_label_fits_is_refused(model: Any, prompts: xr.Dataset) -> None:
    made = batch(prompts)
    width = made.input_ids.shape[1]
    assert Rows(made, 2, 1).labels.tolist() == Rows(made, 2, width + 2).labels[:, -1:].tolist()
    assert Rows(made, 2, width + 2).real[:, -2:].all()
    for step, columns in ((0, 1), (0, width + 1), (1, 3), (2, width + 1)):
        with pytest.raises(ValueError, match=rf"Forward {step} .* has {columns} columns"):
            Rows(dataclasses.replace(made), step, columns)
