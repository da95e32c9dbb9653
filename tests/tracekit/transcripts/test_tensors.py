"""Left-padded batches, and labels back onto what a trace saved."""

import inspect

import numpy as np
import pytest
import torch

import tracekit as tk
from tracekit.storage.provenance import read
from tracekit.transcripts import selection, tensors

TEXTS = ["Where is Paris in the world?", "Yes"]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, [" Here.", " It is so."], template="raw")


def test_a_batch_is_left_padded_and_knows_where_label_0_lies(runs):
    made = tensors.batch(runs, pad=9)
    for n, start in enumerate(made.starts.tolist()):
        ids = made.input_ids[n][made.attention_mask[n].bool()]
        row = runs.token_id.isel(prompt=n).values
        assert ids.tolist() == row[row >= 0].tolist()
        assert made.input_ids[n, start].item() == runs.token_id.isel(prompt=n).sel(token=0).item()
    assert set(made.input_ids[~made.attention_mask.bool()].tolist()) == {9}


def test_label_puts_every_value_in_its_place(tiny_llama, runs):
    made = tensors.batch(runs)
    # the value is the id itself, so that a misplaced one shows
    values = made.input_ids[..., None].float().repeat(1, 1, 3)
    labelled = tk.label(values, runs, layer=2)
    assert labelled.dims == ("prompt", "token", "dim")
    real = runs.token_id.transpose("prompt", "token").values >= 0
    assert np.array_equal(labelled.values[real][:, 0], runs.token_id.values[real])
    assert np.isnan(labelled.values[~real]).all()
    assert labelled.layer.item() == 2
    many = tk.label([values, values + 1], runs, layer=[0, 3])
    assert many.dims == ("prompt", "token", "layer", "dim")
    assert many.sel(layer=3).equals(many.sel(layer=0)) is False


def test_a_users_own_trace_is_labelled_with_its_model(tiny_llama, runs):
    with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)) as tracer:
        hidden = tiny_llama.layers[1].output.save()
        tracer.stop()
    labelled = tk.label(hidden, runs, layer=1, model=tiny_llama)
    captured = tk.capture(tiny_llama, runs, [1], tokens="all", progress=False).isel(layer=0)
    assert np.allclose(labelled, captured, atol=1e-4, equal_nan=True)
    assert read(labelled)["weights"] == read(captured)["weights"]


@pytest.mark.parametrize("change", [lambda x: x[:1], lambda x: x[:, 1:], lambda x: x[..., 0]])
def test_values_that_do_not_match_are_refused(runs, change):
    made = tensors.batch(runs)
    values = torch.zeros(*made.input_ids.shape, 4)
    with pytest.raises(ValueError, match="these transcripts need"):
        tk.label(change(values), runs, layer=1)


def test_a_layer_of_numpys_is_a_layer(tiny_llama, runs):
    values = torch.zeros(*tk.inputs(runs)["input_ids"].shape, 32)
    label = inspect.unwrap(tk.label)
    for layer in (2, np.int64(2)):
        assert label(values, runs, layer=layer).layer.item() == 2
    assert label([values], runs, layer=np.array([2])).dims == ("prompt", "token", "layer", "dim")


def test_heads_are_not_labelled_as_tokens(tiny_llama):
    runs = tk.encode(tiny_llama, ["a b c d", "e f g"], template="raw")
    heads = tiny_llama._module.config.num_attention_heads
    assert runs.sizes["token"] == heads == 4
    with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)) as tracer:
        # (row, head, dim) at the last token
        last = tiny_llama.layers[1].attn.q_proj.output[:, -1].reshape(2, heads, -1).save()
        tracer.stop()
    with pytest.raises(ValueError, match="num_attention_heads is 4 too: heads cannot be told"):
        tk.label(last, runs, layer=1, model=tiny_llama)
    longer = tk.encode(tiny_llama, ["a b c d", "e f g h i"], template="raw")
    with pytest.raises(ValueError, match="these transcripts need"):
        tk.label(last, longer, layer=1, model=tiny_llama)


@pytest.mark.parametrize("text", ["Where is Paris?", ["a", "b"], np.zeros(3)])
def test_anything_but_transcripts_is_refused(tiny_llama, text):
    zeros = torch.zeros(1, 1, 1)
    for function, given in (
        (tk.inputs, (text,)),
        (tk.label, (zeros, text)),
        (tk.capture, (tiny_llama, text)),
        (tk.capture_during, (tiny_llama, text)),
        (tensors.lengths, (text,)),
        (selection.kept_tokens, (text, "all")),
        (tk.per_prompt, (text, [1.0])),
    ):
        with pytest.raises(TypeError, match=r"Transcripts are needed, and this is .*tk\.encode"):
            inspect.unwrap(function)(*given)


def test_padded_ids_without_a_mask_are_refused(tiny_llama, runs):
    ids = tk.inputs(runs)["input_ids"]
    pad = tiny_llama.tokenizer.pad_token_id
    assert tensors.batch(runs).attention_mask.min() == 0
    ids = torch.where(tk.inputs(runs)["attention_mask"].bool(), ids, pad)
    for unmasked in (ids, {"input_ids": ids}, ids.flip(1)):
        with (
            pytest.raises(ValueError, match=r"without an attention mask.*padding ids"),
            tiny_llama.trace(unmasked),
        ):
            tiny_llama.layers[0].output.save()
    with tiny_llama.trace({"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
        tiny_llama.layers[0].output.save()
    with tiny_llama.trace(ids[:, -2:]):
        tiny_llama.layers[0].output.save()
