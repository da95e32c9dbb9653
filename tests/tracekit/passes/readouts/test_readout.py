"""Log-probabilities against transformers' own, and the logit lens."""

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.sites import first
from tracekit.passes.readouts.responses import next_logprobs

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, [" And so on.", " No"], template="raw")


def test_logprobs_equal_each_row_alone(tiny_llama, tiny_folder, runs):
    found = tk.logprobs(tiny_llama, runs)
    theirs = reference.load(tiny_folder)
    for n in range(2):
        ids = runs.token_id.isel(prompt=n).values
        ids = torch.tensor([ids[ids >= 0].tolist()])
        with torch.no_grad():
            scores = torch.log_softmax(theirs(input_ids=ids).logits[0, :-1], -1)
        expected = scores.gather(1, ids[0, 1:, None]).squeeze(1).numpy()
        ours = found.isel(prompt=n).values
        assert np.allclose(ours[~np.isnan(ours)], expected, atol=1e-4)
        assert not np.allclose(ours[~np.isnan(ours)], np.roll(expected, 1), atol=1e-4)


def test_the_lens_on_the_last_layer_is_the_models_own_logits(tiny_llama, runs):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False).isel(layer=0)
    lens = tk.unembed(tiny_llama, last, top=3)
    with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)):
        logits = tiny_llama.output.logits.save()
    best = logits[:, -1].topk(3)
    at = lens.isel(prompt=0).sel(token=runs.token.values[-1])
    assert np.allclose(at.logit, best.values[0], atol=1e-4)
    words = [tiny_llama.tokenizer.decode([i]) for i in best.indices[0].tolist()]
    assert [
        w.replace("\n", "\\n").replace("\t", "\\t") for w in words
    ] == at.promoted.values.tolist()
    first = tk.capture(tiny_llama, runs, [0], tokens="all", progress=False).isel(layer=0)
    assert not np.allclose(tk.unembed(tiny_llama, first, top=3).logit, lens.logit, equal_nan=True)
    assert set(lens.promoted.values[last.token_id.values < 0].ravel()) == {""}


def test_an_array_of_another_width_is_refused(tiny_llama, runs):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False)
    with pytest.raises(ValueError, match="residual stream has 32 dims"):
        tk.unembed(tiny_llama, last.isel(dim=slice(0, 16)))
    for top in (0, 10**6):
        with pytest.raises(tk.InputError, match=f"top={top} was asked for; give a number from 1"):
            tk.unembed(tiny_llama, last, top=top)


LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
# model_type → what it does to the logits after (or, MiniCPM, before) the output head
TAILS = {
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "minicpm3": {"dim_model_base": 8, "num_key_value_heads": 4, "head_dim": 8, **LATENT},
    "falcon_h1": {"lm_head_multiplier": 0.25, "mamba_d_ssm": 32, "mamba_n_heads": 4},
}


def tailed(kind, words):
    return tiny.module(kind, {**tiny.ROTARY, "vocab_size": len(words), **TAILS[kind]})


def added(output, value):
    new = first(output) + torch.as_tensor(value)
    return (new, *output[1:]) if isinstance(output, tuple) else new


def largest(difference):
    return float(np.nanmax(np.abs(difference)))


@pytest.fixture(scope="module", params=TAILS)
def tail(request, words):
    module = tailed(request.param, words)
    model = tk.load(module, tokenizer=words)
    runs = tk.encode(model, TEXTS, [" And so on.", " No"], template="raw")
    ids = [torch.tensor([row[row >= 0].tolist()]) for row in runs.token_id.values]
    logits = [module(input_ids=row).logits[0].float() for row in ids]
    head = [module.get_output_embeddings()(module.model(row)[0])[0] for row in ids]
    assert max(float((a - b).abs().max()) for a, b in zip(logits, head, strict=True)) > 0.1
    return model, module, runs, ids, logits


def test_logprobs_are_of_the_models_own_logits(tail):
    model, _, runs, ids, logits = tail
    found = tk.logprobs(model, runs)
    for n, (row, predicted) in enumerate(zip(ids, logits, strict=True)):
        expected = predicted[:-1].log_softmax(-1).gather(1, row[0, 1:, None])[:, 0].numpy()
        ours = found.isel(prompt=n).dropna("token").values
        assert largest(ours - expected) < 1e-4
        expected[1] += 1e-3
        assert largest(ours - expected) > 1e-4
    after = next_logprobs(model, runs, [5, 6], before=(2, 0))
    for n, predicted in enumerate(logits):
        wanted = predicted[[-3, -1]].log_softmax(-1)[:, [5, 6]].numpy()
        assert largest(after.values[:, n] - wanted) < 1e-4
        assert largest(after.values[::-1, n] - wanted) > 1e-4
    shortest = min(map(len, logits))
    with pytest.raises(ValueError, match=f"the shortest row has {shortest}"):
        next_logprobs(model, runs, [5], before=[shortest])


def test_the_lens_applies_what_the_model_applies(tail):
    model, _, runs, _, logits = tail
    last = tk.capture(model, runs, [3], tokens="all", progress=False).isel(layer=0)
    lens = tk.unembed(model, last, top=5).logit
    for n, predicted in enumerate(logits):
        ours, best = lens.isel(prompt=n).dropna("token").values, predicted.topk(5).values.numpy()
        assert largest(ours - best) < 1e-4
        assert largest(ours * 1.01 - best) > 1e-4
    one = tk.unembed(model, last.isel(prompt=0, token=-1), top=5)
    assert one.logit.dims == ("top",)


def test_divergence_and_gradients_are_of_the_models_own_logits(tail):
    model, module, runs, ids, logits = tail
    pushed = np.random.default_rng(0).normal(size=32).astype(np.float32)
    vector = xr.DataArray(pushed, dims="dim", coords={"layer": 1})
    edited = tk.steer(model, vector, coefficient=3.0, tokens="all", transfer=True)
    found = tk.divergence(model, edited, runs)
    block = module.model.layers[1]
    for n, row in enumerate(ids):
        handle = block.register_forward_hook(lambda *seen: added(seen[-1], 3 * pushed))
        moved = module(input_ids=row).logits[0].log_softmax(-1)
        handle.remove()
        start = int(runs.prompt_length[n])
        base = logits[n].log_softmax(-1)
        expected = (base.exp() * (base - moved)).sum(-1)[start - 1 : -1].numpy()
        ours = found.isel(prompt=n).dropna("token").values
        assert np.allclose(ours, expected, rtol=1e-2, atol=1e-6)
        assert not np.allclose(ours * 1.1, expected, rtol=1e-2, atol=1e-6)
    words = model.tokenizer
    yes, no = words("Yes")["input_ids"][0], words("No")["input_ids"][0]
    kept = []
    handle = block.register_forward_hook(
        lambda *seen: kept.append(first(seen[-1]).requires_grad_())
    )
    predicted = module(input_ids=ids[0]).logits[0, -1]
    handle.remove()
    (expected,) = torch.autograd.grad(predicted[yes] - predicted[no], kept[0])
    ours = tk.gradients(
        model, runs.isel(prompt=[0]), [1], towards="Yes", against="No", tokens="all"
    )
    ours = ours.isel(prompt=0, layer=0).dropna("token").values
    size = float(expected.abs().max())
    assert largest(ours - expected[0].numpy()) < 1e-4 * size
    assert largest(ours * 1.01 - expected[0].numpy()) > 1e-4 * size
