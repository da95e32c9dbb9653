"""A metric of each row, against the plain module's own logits and residuals."""

import functools

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk


@pytest.fixture(scope="module")
def runs(tiny_llama):
    texts = ["A cat sat", "The rain in Spain stays mainly there"]
    return tk.encode(tiny_llama, texts, [" on it", " at last, they say"], template="raw")


def plain(model, runs):
    """Each row by itself: the logits, and the residual after block 1."""
    found = []
    for row in runs.token_id.values:
        with torch.no_grad():
            said = model._module(
                input_ids=torch.tensor([row[row >= 0].tolist()]), output_hidden_states=True
            )
        found.append((said.logits[0], said.hidden_states[2][0]))
    return found


def alike(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours, np.add(expected, [0, 1e-2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [None, 12])
def test_a_pair_of_words_for_each_row(tiny_llama, runs, budget):
    metric = tk.logit_difference(tiny_llama, [" yes", " red"], [" no", " blue"])
    pairs = zip(metric.towards.tolist(), metric.against.tolist(), strict=True)
    rows = zip(plain(tiny_llama, runs), pairs, strict=True)
    expected = [float(logits[-1, a] - logits[-1, b]) for (logits, _), (a, b) in rows]
    found = tk.measure(tiny_llama, runs, metric, token_budget=budget)
    alike(found, expected)
    assert found.prompt.values.tolist() == runs.prompt.values.tolist()
    assert "group" in found.coords


def test_the_response_and_a_direction(tiny_llama, runs):
    said = [
        int((row.token_id.sel(token=slice(0, None)) >= 0).sum())
        for _, row in runs.groupby("prompt")
    ]
    direction = xr.DataArray(np.random.default_rng(0).normal(size=32), dims="dim").assign_coords(
        layer=1
    )
    logprob, along = [], []
    for (logits, residual), row, count in zip(
        plain(tiny_llama, runs), runs.token_id.values, said, strict=True
    ):
        ids = torch.tensor(row[row >= 0].tolist())
        scores = logits[:-1].log_softmax(-1).gather(1, ids[1:, None])
        logprob.append(float(scores[-count:].sum()))
        along.append(float((residual[-count:].double() @ direction.values).mean()))
    alike(tk.measure(tiny_llama, runs, "logprob"), logprob)
    alike(tk.measure(tiny_llama, runs, direction), along)


def test_an_edited_model_and_a_metric_of_another_shape(tiny_llama, runs):
    metric = tk.logit_difference(tiny_llama, " yes", " no")
    edited = tk.knock_out(tiny_llama, [1], site="mlp")

    def zero(_module, _inputs, output):
        return torch.zeros_like(output)

    handle = tiny_llama._module.model.layers[1].mlp.register_forward_hook(zero)
    try:
        rows = plain(tiny_llama, runs)
    finally:
        handle.remove()
    (a,), (b,) = metric.towards.tolist(), metric.against.tolist()
    alike(
        tk.measure(edited, runs, metric),
        [float(logits[-1, a] - logits[-1, b]) for logits, _ in rows],
    )
    with pytest.raises(ValueError, match="one number a row"):
        tk.measure(tiny_llama, runs, lambda logits: logits.sum())


def test_the_lens_of_transcripts_is_that_of_their_captured_residuals(tiny_llama, runs):
    ids = [tiny_llama.tokenizer(" a", add_special_tokens=False)["input_ids"][0], 7]
    found = tk.logit_lens(tiny_llama, runs, ids).logprob
    words = tk.unembed(tiny_llama, runs, top=1).promoted
    module = tiny_llama._module
    for n, (logits, residual) in enumerate(plain(tiny_llama, runs)):
        with torch.no_grad():
            inner = module.lm_head(module.model.norm(residual[-1])).log_softmax(-1)
        at = found.isel(prompt=n).dropna("token", how="all").isel(token=-1)
        alike(at.sel(layer=1), inner[ids])
        alike(at.sel(layer=3), logits[-1].log_softmax(-1)[ids])
        best = tiny_llama.tokenizer.decode([int(inner.argmax())])
        assert words.isel(prompt=n).sel(layer=1, token=at.token).item() == best


def test_a_default_is_the_metrics_own_and_rows_are_given_where_they_are_asked_for(tiny_llama, runs):
    expected = [float(logits[-1, 5]) for logits, _ in plain(tiny_llama, runs)]

    def scaled(logits, scale=2.0):
        return scale * logits[:, 5]

    def chosen(logits, *, token=5):
        return logits[:, token]

    alike(tk.measure(tiny_llama, runs, scaled) / 2, expected)
    alike(tk.measure(tiny_llama, runs, chosen), expected)
    alike(tk.measure(tiny_llama, runs, functools.partial(chosen, token=5)), expected)
    for i in (5,):
        alike(tk.measure(tiny_llama, runs, lambda logits, i=i: logits[:, i]), expected)
    with_rows = tk.measure(tiny_llama, runs, lambda logits, places: logits[:, 5] + places)
    alike(with_rows, np.add(expected, [0, 1]))
    alike(tk.measure(tiny_llama, runs, lambda x, rows=None: x[:, 5] + rows), with_rows.values)


def test_two_metrics_are_two_in_the_provenance(tiny_llama, runs):
    one = tk.measure(tiny_llama, runs, lambda logits: logits[:, 0])
    other = tk.measure(tiny_llama, runs, lambda logits: logits[:, 1])
    same = tk.measure(tiny_llama, runs, lambda logits: logits[:, 0])
    assert tk.provenance(one) == tk.provenance(same)
    assert tk.provenance(one) != tk.provenance(other)
    assert not tk.difference(one, same).any()
    with pytest.raises(tk.InputError, match="metric"):
        tk.difference(one, other)
    named = tk.measure(tiny_llama, runs, ("own", lambda logits: logits[:, 0]))
    assert tk.provenance(named)["metric"] == "own"
    np.testing.assert_array_equal(named, one)
