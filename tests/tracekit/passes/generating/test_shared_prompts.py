"""Samples of one prompt: its forward runs once, and what is said stays what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import AutoTokenizer

import tracekit as tk
from tests.support.models import tiny
from tracekit.model.record import origin
from tracekit.passes.generating import generation, shared_prompts
from tracekit.transcripts import tensors
from tracekit.transcripts.padded import Batch

HYBRID = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
FALCON = {**HYBRID, "mamba_d_ssm": 64, "attention_out_multiplier": 0.5}
PROMPTS = ["Why is it that the sea is so very blue?", "Who?", "Name the three longest rivers."]


@contextmanager
def tokens_through(model: Any) -> Iterator[list[int]]:
    """How many tokens go through the model, forward by forward."""
    seen: list[int] = []
    embedding = model._module.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    try:
        yield seen
    finally:
        hook.remove()


def said(model: Any, runs: xr.Dataset, **more: Any) -> xr.Dataset:
    return tk.generate(model, runs, max_new_tokens=5, progress=False, min_new_tokens=5, **more)


def apart(model: Any, batch: Batch, *about: Any) -> tuple[Batch, None]:
    """In the place of `shared`: every row goes through the model whole."""
    return batch, None


@pytest.fixture(scope="module")
def asked(tiny_llama: Any) -> xr.Dataset:
    rows = tk.encode(tiny_llama, PROMPTS)
    said(tiny_llama, rows)  # its steps are proved once, by forwards of their own
    return rows


@pytest.mark.parametrize("sampled", [{}, {"temperature": 1.0, "samples": 4, "seed": 5}])
def test_samples_are_those_of_the_whole_prompts_forward(
    tiny_llama: Any, asked: xr.Dataset, sampled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        asked
        if sampled
        else asked.isel(prompt=[0, 1, 0, 1, 0, 2]).assign_coords(prompt=[*"abcdef"])
    )
    with tokens_through(tiny_llama) as once:
        found = said(tiny_llama, rows, token_budget=10_000, **sampled)
    monkeypatch.setattr(generation, "shared", apart)
    with tokens_through(tiny_llama) as each:
        expected = said(tiny_llama, rows, token_budget=10_000, **sampled)
    np.testing.assert_array_equal(found.token_id.values, expected.token_id.values)
    width, count = int(tensors.lengths(asked).max()), found.sizes["prompt"]
    assert each == [count * width, *[count] * 4]
    assert once == [len(PROMPTS) * (width - 1), count, *[count] * 4]


def test_samples_of_one_prompt_differ_and_repeat(tiny_llama: Any, asked: xr.Dataset) -> None:
    first, again, other = (
        said(tiny_llama, asked, temperature=1.0, samples=4, seed=seed) for seed in (1, 1, 2)
    )
    responses = first.token_id.sel(token=slice(0, None)).values
    assert len(np.unique(responses[:4], axis=0)) > 1
    np.testing.assert_array_equal(first.token_id.values, again.token_id.values)
    assert not np.array_equal(responses, other.token_id.sel(token=slice(0, None)).values)


def test_a_layer_with_a_state_besides_its_keys_is_not_shared(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Falcon-H1: attention and a Mamba mixer in each block, in one cache layer."""
    words = AutoTokenizer.from_pretrained(tiny_folder)
    sizes = {**tiny.ROTARY, "vocab_size": len(words), **FALCON}
    model = tk.load(tiny.module("falcon_h1", sizes), tokenizer=words)
    rows = tk.encode(model, PROMPTS[:2], template="raw")
    found = said(model, rows, temperature=1.0, samples=4, seed=1)
    monkeypatch.setattr(generation, "shared", apart)
    expected = said(model, rows, temperature=1.0, samples=4, seed=1)
    np.testing.assert_array_equal(found.token_id.values, expected.token_id.values)


def test_what_it_cannot_share_goes_through_whole(tiny_llama: Any, asked: xr.Dataset) -> None:
    def shares(model: Any, rows: list[int]) -> bool:
        batch = generation.batching.batch(model, asked, rows)
        return shared_prompts.shared(model, batch, 5)[1] is not None

    assert shares(tiny_llama, [0, 0, 2, 2])
    assert not shares(tiny_llama, [0, 1, 2])
    assert not shares(tiny_llama, [0, 0, 2])
    size = tiny_llama._module.config.hidden_size
    steered = tk.steer(tiny_llama, torch.ones(size), layers=[1], coefficient=1.0)
    assert not shares(steered, [0, 0, 2, 2])


SYSTEM = {"role": "system", "content": "Be brief, and say what the sea would say of it. " * 3}


@pytest.fixture(scope="module")
def told(tiny_llama: Any) -> xr.Dataset:
    """Prompts of unequal length that begin with the same system prompt."""
    made = [[SYSTEM, {"role": "user", "content": text}] for text in PROMPTS]
    rows = tk.encode(tiny_llama, made)
    said(tiny_llama, rows)
    return rows


def test_rows_that_begin_alike_read_that_once_and_say_the_same(
    tiny_llama: Any, told: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(tiny_llama, told, token_budget=10_000)  # that is proved once, too
    with tokens_through(tiny_llama) as once:
        found = said(tiny_llama, told, token_budget=10_000)
    monkeypatch.setattr(generation, "shared", apart)
    with tokens_through(tiny_llama) as each:
        expected = said(tiny_llama, told, token_budget=10_000)
    np.testing.assert_array_equal(found.token_id.values, expected.token_id.values)
    batch = generation.batching.batch(tiny_llama, told)
    common, width = shared_prompts.beginning(batch)[1], batch.input_ids.shape[1]
    assert common > 40
    assert each == [3 * width, *[3] * 4]
    assert once == [common, 3 * (width - common), *[3] * 4]


def test_a_beginning_keeps_each_rows_ids_in_order_and_its_padding_behind_it(
    tiny_llama: Any, told: xr.Dataset
) -> None:
    batch = generation.batching.batch(tiny_llama, told)
    made, common = shared_prompts.beginning(batch)
    assert bool(made.attention_mask[:, :common].all())
    assert (made.input_ids[:, :common] == made.input_ids[0, :common]).all()
    assert not bool((made.input_ids[:, common:] == made.input_ids[0, common:]).all())
    parts = batch.input_ids, batch.attention_mask, made.input_ids, made.attention_mask
    for rows in zip(*parts, strict=True):
        ids, mask, moved, held = rows
        torch.testing.assert_close(ids[mask.bool()], moved[held.bool()])
        # padding in one piece: behind the beginning
        pads = len(mask) - int(mask.sum())
        assert not bool(held[common : common + pads].any())
    # little is shared: as it was
    assert shared_prompts.beginning(batch, worthwhile=0.99)[1] == 0


def test_a_model_that_reads_wrongly_behind_padding_in_the_middle_reads_each_row_whole(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tk.load(tiny_folder)
    rows = tk.encode(model, [[SYSTEM, {"role": "user", "content": text}] for text in PROMPTS])
    right = shared_prompts.beginning

    def wrong(batch: Batch, *about: float) -> tuple[Batch, int]:
        made, common = right(batch, *about)
        # as a model that takes the padding for text
        return dataclasses.replace(made, attention_mask=torch.ones_like(made.input_ids)), common

    monkeypatch.setattr(shared_prompts, "beginning", wrong)
    found = said(model, rows)
    assert "steps apart" in origin(model).proved
    monkeypatch.setattr(generation, "shared", apart)
    np.testing.assert_array_equal(found.token_id.values, said(model, rows).token_id.values)
