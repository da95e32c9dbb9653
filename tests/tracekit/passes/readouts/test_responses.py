"""Log-probabilities of responses: those of the whole forward, for fewer tokens and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.models import tiny
from tracekit.model.record import origin
from tracekit.passes.generating import shared_prompts
from tracekit.passes.readouts import responses
from tracekit.passes.readouts.responses import response_logprobs

SYSTEM = {"role": "system", "content": "Be brief, and say what the sea would say of it. " * 3}
ASKED = ["Why is it that the sea is so very blue?", "Who?", "Name the three longest rivers."]
SAID = ["It is not, at night.", "Me.", "There are more than three of those, and none is long."]


def runs_of(model: Any) -> xr.Dataset:
    rows = [[SYSTEM, {"role": "user", "content": text}] for text in ASKED]
    return tk.encode(model, rows, responses=SAID)


@pytest.fixture(scope="module")
def told(tiny_llama: Any) -> xr.Dataset:
    return runs_of(tiny_llama)


def test_they_are_those_of_the_whole_forward(tiny_llama: Any, told: xr.Dataset) -> None:
    found = response_logprobs(tiny_llama, told)
    whole = tk.logprobs(tiny_llama, told).sel(token=slice(0, None))
    assert responses.PROVED in origin(tiny_llama).proved
    xr.testing.assert_allclose(found, whole, atol=1e-5)
    assert int(found.token[0]) == 0
    assert int(found.notnull().sum()) == int((told.token_id.sel(token=slice(0, None)) >= 0).sum())
    # and not those of other rows
    assert float(abs(found.isel(prompt=0) - found.isel(prompt=2)).max()) > 0.1


def test_fewer_tokens_and_logits_are_computed(tiny_llama: Any, told: xr.Dataset) -> None:
    told = told.isel(prompt=[0, 2])  # of a length, so that they are one batch
    response_logprobs(tiny_llama, told)  # what it shares is proved once
    seen: dict[str, list[int]] = {"embedding": [], "head": []}
    module = tiny_llama._module
    hooks = [
        part.register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0].shape[:2].numel())
        )
        for name, part in (
            ("embedding", module.get_input_embeddings()),
            ("head", module.get_output_embeddings()),
        )
    ]
    response_logprobs(tiny_llama, told)
    for hook in hooks:
        hook.remove()
    batch = responses.batching.batch(tiny_llama, told)
    common, width = shared_prompts.beginning(batch)[1], batch.input_ids.shape[1]
    longest = int((width - batch.starts).max())
    assert common > 40
    assert seen == {
        "embedding": [common, 2 * (width - common)],
        "head": [1, 2 * (longest + 1)],
    }


def test_edits_and_short_beginnings_go_through_whole(tiny_llama: Any, told: xr.Dataset) -> None:
    size = tiny_llama._module.config.hidden_size
    steered = tk.steer(tiny_llama, torch.ones(size), layers=[1], coefficient=0.5)
    whole = tk.logprobs(steered, told).sel(token=slice(0, None))
    xr.testing.assert_allclose(response_logprobs(steered, told), whole, atol=1e-5)
    plain = tk.encode(tiny_llama, ASKED, responses=SAID, template="raw")
    whole = tk.logprobs(tiny_llama, plain).sel(token=slice(0, None))
    xr.testing.assert_allclose(response_logprobs(tiny_llama, plain), whole, atol=1e-5)


def test_samples_of_one_prompt_share_no_token_that_foretells_a_response(tiny_llama: Any) -> None:
    rows = [tk.Prompt(name, text=ASKED[0]) for name in "abc"]
    runs = tk.encode(tiny_llama, rows, responses=["Blue it is.", "Blue it is.", "Blue!"])
    found = response_logprobs(tiny_llama, runs)
    whole = tk.logprobs(tiny_llama, runs).sel(token=slice(0, None))
    xr.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_model_of_which_it_is_not_true_reads_each_row_whole(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tk.load(tiny_folder)
    runs = runs_of(model)
    whole = tk.logprobs(model, runs).sel(token=slice(0, None))
    monkeypatch.setattr(responses, "shared_beginning", in_wrong_columns)
    found = response_logprobs(model, runs)
    assert responses.REFUSED in origin(model).proved
    xr.testing.assert_allclose(found, whole, atol=1e-5)


def in_wrong_columns(model: Any, batch: Any, more: int, holes: Any) -> tuple[Any, Any]:
    """As `shared_beginning`, with the keys and values of another text."""
    made, cache = shared_prompts.shared_beginning(model, batch, more, holes)
    if cache is not None:
        for layer in cache.layers:
            layer.keys = layer.keys.flip(2)
    return made, cache


def test_models_that_take_no_cache_of_before(tiny_folder: Path) -> None:
    """A state in the place of keys and values: every row whole."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "vocab_size": 512}
    tokenizer = tk.load(tiny_folder).tokenizer
    model = tk.load(
        tiny.module("mamba", {**sizes, "vocab_size": len(tokenizer)}), tokenizer=tokenizer
    )
    runs = tk.encode(model, ASKED, responses=SAID, template="raw")
    whole = tk.logprobs(model, runs).sel(token=slice(0, None))
    np.testing.assert_allclose(response_logprobs(model, runs).values, whole.values, atol=1e-4)
