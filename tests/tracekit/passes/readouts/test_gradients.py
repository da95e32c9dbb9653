"""Gradients of the next word against plain autograd, each row alone."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.oracles import reference
from tracekit.passes.readouts.logits import next_logprobs

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]
WORDS = {"towards": " cat", "against": " mat"}


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, TEXTS, template="raw")


@pytest.fixture(scope="module")
def found(tiny_llama: Any, runs: xr.Dataset) -> xr.DataArray:
    return tk.gradients(tiny_llama, runs, **WORDS, tokens="all")


def first_ids(model: Any) -> list[int]:
    return [
        model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS.values()
    ]


def test_they_are_those_of_autograd_for_each_row_alone(
    tiny_llama: Any, tiny_folder, runs: xr.Dataset, found: xr.DataArray
) -> None:
    theirs = reference.load(tiny_folder)
    towards, against = first_ids(tiny_llama)
    for n in range(len(TEXTS)):
        ids = runs.token_id.isel(prompt=n).values
        out = theirs(input_ids=torch.tensor([ids[ids >= 0].tolist()]), output_hidden_states=True)
        # the last of the hidden states is after the final norm
        states = out.hidden_states[1:-1]
        for state in states:
            state.retain_grad()
        scores = torch.log_softmax(out.logits[0, -1], -1)
        (scores[towards] - scores[against]).backward()
        ours = found.isel(prompt=n).values[ids >= 0]
        for layer, state in enumerate(states):
            expected = state.grad[0].numpy()
            scale = np.abs(expected).max()
            assert np.allclose(ours[:, layer], expected, atol=1e-4 * scale)
            assert not np.allclose(ours[:, layer + 1], expected, atol=1e-2 * scale)


def test_holes_are_nan_and_labels_ride_along(runs: xr.Dataset, found: xr.DataArray) -> None:
    assert found.dims == ("prompt", "token", "layer", "dim")
    assert np.array_equal(np.isnan(found.values).all((2, 3)), found.token_id.values < 0)
    assert found.sizes["token"] == runs.sizes["token"]


def test_some_layers_and_tokens_are_those_of_all(
    tiny_llama: Any, runs: xr.Dataset, found: xr.DataArray
) -> None:
    few = tk.gradients(tiny_llama, runs, [-1, 2], **WORDS, tokens=slice(-2, -1), token_budget=1)
    assert few.token.values.tolist() == [-2, -1]
    same = found.sel(token=slice(-2, -1), layer=2)
    assert np.allclose(few.sel(layer=2), same, atol=1e-4 * float(np.abs(same).max()))
    assert not np.allclose(few.sel(layer=-1), same, atol=1e-2 * float(np.abs(same).max()))


def test_a_small_step_along_them_raises_the_chance_as_much(
    tiny_llama: Any, runs: xr.Dataset, found: xr.DataArray
) -> None:
    def odds(model: Any) -> np.ndarray:
        at = next_logprobs(model, runs, first_ids(tiny_llama)).values
        return at[:, 0] - at[:, 1]

    slope = found.sel(layer=1, token=-1).isel(prompt=0)
    length = float(np.linalg.norm(slope))
    step = tk.steer(tiny_llama, slope / length, coefficient=1e-2)
    rise = (odds(step) - odds(tiny_llama))[0]
    assert rise == pytest.approx(1e-2 * length, rel=0.05)


def test_words_that_cannot_be_told_apart_are_refused(tiny_llama: Any, runs: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="begin with different tokens"):
        tk.gradients(tiny_llama, runs, towards=" cat", against=" cat")
    with pytest.raises(ValueError, match="blocks 0 to"):
        tk.gradients(tiny_llama, runs, [99], **WORDS)
