"""Gradients of the next word against plain autograd, each row alone."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.oracles import one_by_one, reference
from tracekit.passes.readouts.responses import next_logprobs

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
        at = next_logprobs(model, runs, first_ids(tiny_llama)).values[0]
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


def rows_of(runs: xr.Dataset) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in runs.token_id.values.tolist()]


def same(ours: np.ndarray, plain: torch.Tensor) -> None:
    """They agree, and a hundredth more of it would be seen."""
    scale = float(plain.abs().max())
    np.testing.assert_allclose(ours, plain.numpy(), atol=2e-4 * scale)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours, 1.01 * plain.numpy(), atol=2e-4 * scale)


def test_of_a_pair_a_row_with_an_adapter_on(
    tiny_llama: Any, tiny_folder: Any, tiny_lora: Any, runs: xr.Dataset
) -> None:
    metric = tk.logit_difference(tiny_llama, [" cat", " yes"], [" mat", " no"])
    with tk.adapter(tiny_llama, str(tiny_lora)):
        found = tk.gradients(tiny_llama, runs, [0, 2], metric=metric, tokens="all")
    bare = tk.gradients(tiny_llama, runs, [0, 2], metric=metric, tokens="all")
    theirs = reference.load(tiny_folder, lora=tiny_lora)
    for n, ids in enumerate(rows_of(runs)):
        score = lambda out, n=n: metric(out.logits[:, -1], torch.tensor([n]))[0]
        for layer in (0, 2):
            _, slope = one_by_one.slopes(theirs, ids, "residual", layer, score)
            same(found.isel(prompt=n).sel(layer=layer).dropna("token").values, slope)
    assert float(abs(found - bare).max()) > 1e-3


def test_of_the_responses_own_ids_and_of_a_probe(tiny_llama: Any, tiny_folder: Any) -> None:
    runs = tk.encode(tiny_llama, TEXTS, ["Yes, it is so.", "No."])
    direction = np.linspace(-1, 1, 32).astype(np.float32)
    probe = xr.DataArray(direction, dims="dim", coords={"layer": 2})
    theirs = reference.load(tiny_folder)
    own = tk.gradients(tiny_llama, runs, [0, 1], metric="logprob", tokens="all")
    probed = tk.gradients(tiny_llama, runs, [0, 1], metric=probe, tokens="all")
    for n, ids in enumerate(rows_of(runs)):
        begin = int(runs.prompt_length[n])

        def said(out: Any, ids: list[int] = ids, begin: int = begin) -> torch.Tensor:
            scores = torch.log_softmax(out.logits[0, :-1], -1)
            return scores[range(len(ids) - 1), ids[1:]][begin - 1 :].sum()

        def read(out: Any, begin: int = begin) -> torch.Tensor:
            return (out.hidden_states[3][0, begin:] @ torch.from_numpy(direction)).mean()

        for layer in (0, 1):
            for found, score in ((own, said), (probed, read)):
                _, slope = one_by_one.slopes(theirs, ids, "residual", layer, score)
                same(found.isel(prompt=n).sel(layer=layer).dropna("token").values, slope)


def test_times_input_and_along_a_path_add_up(
    tiny_llama: Any, tiny_folder: Any, tiny_lora: Any, runs: xr.Dataset
) -> None:
    metric = tk.logit_difference(tiny_llama, *WORDS.values())
    given: dict[str, Any] = {"metric": metric, "tokens": slice(-3, -1), "times_input": True}
    own = tk.capture(tiny_llama, runs, [-1, 1], tokens="all", progress=False)
    with tk.adapter(tiny_llama, str(tiny_lora)):
        begins = tk.capture(tiny_llama, runs, [-1, 1], tokens="all", progress=False)
    plain = tk.gradients(tiny_llama, runs, [-1, 1], **given)
    slopes = tk.gradients(tiny_llama, runs, [-1, 1], **{**given, "times_input": False})
    np.testing.assert_allclose(plain, slopes * own.sel(token=slopes.token), atol=1e-6)
    path = tk.gradients(tiny_llama, runs, [-1, 1], steps=24, baseline=begins, **given)
    theirs = reference.load(tiny_folder)
    for n, ids in enumerate(rows_of(runs)):
        score = lambda logits: metric(logits[None], torch.tensor([0]))[0]
        source = torch.from_numpy(begins.sel(layer=1).isel(prompt=n).dropna("token").values)
        pairs = [(len(ids) + k, len(ids) + k) for k in range(-3, 0)]
        there = one_by_one.patched(theirs, ids, source, "residual", 1, pairs, score)
        here = one_by_one.patched(theirs, ids, source, "residual", 1, [], score)
        whole = float(path.sel(layer=1).isel(prompt=n).sum())
        assert whole == pytest.approx(here - there, abs=2e-3)
        assert abs(float(plain.sel(layer=1).isel(prompt=n).sum()) - whole) > 1e-2
    assert not np.allclose(path.sel(layer=-1), path.sel(layer=1), atol=1e-2, equal_nan=True)


def test_metrics_and_paths_that_do_not_fit_are_refused(
    tiny_llama: Any, runs: xr.Dataset, found: xr.DataArray
) -> None:
    def refused(match: str, *layers: Any, **given: Any) -> None:
        with pytest.raises(ValueError, match=match):
            tk.gradients(tiny_llama, runs, *layers, **given)

    probe = found.isel(prompt=0, token=-1).sel(layer=1)
    refused(r"Layers \[2, 3\] .* the probe reads layer 1", [1, 2, 3], metric=probe)
    refused(r"one direction of 32 dims", metric=probe.drop_vars("layer"))
    refused(r"needs a tensor of shape \(2,\)", metric=lambda logits: logits)
    refused(r"Give a metric, or both words", towards=" cat")
    refused(r"Give a metric, or both words", metric=probe, **WORDS)
    refused(r"give steps= too", baseline=found, **WORDS)
    refused(r"steps=0", steps=0, **WORDS)
    refused(r"lacks \d+ of", [1], steps=2, baseline=found.isel(token=[0]), tokens="all", **WORDS)
    other = found.sel(layer=[2])
    refused(r"Layers \[1\] .* not in the array", [1], steps=2, baseline=other, **WORDS)
