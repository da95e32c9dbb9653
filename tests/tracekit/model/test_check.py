"""The checks of a model: each passes as it is, and fails by its words when its subject is wrong."""

import re

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, LlamaForCausalLM

import tracekit as tk
from tests.support.counting import Counting
from tests.support.models import tiny
from tracekit.model.checks.check import (
    _check_hidden_states,
    _check_later,
    _check_logits,
    _check_shapes,
    _check_single,
    _everything,
    probe,
    verify_adapter,
)
from tracekit.model.record import origin

BOUND = 8


def test_a_load_with_an_adapter_takes_at_most_eight_forwards(tiny_folder, tiny_lora, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    with Counting(module) as forwards:
        model = tk.load(module, tokenizer=words, adapter=tiny_lora)
    assert 0 < forwards.count <= BOUND
    with Counting(module) as forwards:
        tk.check(model)
    assert 0 < forwards.count <= BOUND
    bare = LlamaForCausalLM.from_pretrained(tiny_folder)  # the first one carries an adapter now
    with Counting(bare) as forwards:
        tk.load(bare, tokenizer=words, check=False)
    assert forwards.count == 0


def seen_by(model):
    batch = probe(model)
    seen = _everything(model, batch)
    # outputs, inputs and transformers' hidden states are the same tensors: a change must not reach
    # all of them
    seen["output"] = [value.clone() for value in seen["output"]]
    return seen, batch


def test_an_off_by_one_layer_is_found_and_named(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    _check_hidden_states(tiny_llama, seen, batch)
    shifted = {**seen, "output": [*seen["output"][1:], seen["output"][0]]}
    with pytest.raises(ValueError, match=r"residual, layer 0: .* is [\d.]+, where 0 was expected"):
        _check_hidden_states(tiny_llama, shifted, batch)


def test_one_changed_value_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][2][0, 3, 5] += 1e-4
    with pytest.raises(ValueError, match="residual, layer 2"):
        _check_hidden_states(tiny_llama, seen, batch)


def test_a_last_layer_that_is_final_normed_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][-1] = seen["hidden"][-1]
    with pytest.raises(ValueError, match="the last block's output equals the final-normed"):
        _check_hidden_states(tiny_llama, seen, batch)


def test_output_that_is_not_row_column_dim_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][1] = seen["output"][1][0]
    with pytest.raises(ValueError, match=r"layers\[1\] has the shape \(7, 32\), not \(2, 7, 32\)"):
        _check_shapes(tiny_llama, seen, batch)


def test_several_residual_streams_are_refused_by_what_they_are(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][1] = seen["output"][1][None].repeat(4, 1, 1, 1)
    with pytest.raises(ValueError, match=r"\(4, 2, 7, 32\): its blocks carry several residual str"):
        _check_shapes(tiny_llama, seen, batch)


def test_a_model_that_looks_ahead_is_refused(tiny_llama, words):
    seen, batch = seen_by(tiny_llama)
    _check_later(tiny_llama, seen, batch)
    seen["output"][2][0, 3, 5] += 0.1
    with pytest.raises(ValueError, match=r"layer 2: .* earlier ones by [\d.]+ .*not a causal"):
        _check_later(tiny_llama, seen, batch)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    for decoder in (False, True):
        config = BertConfig(
            **sizes, num_attention_heads=4, vocab_size=len(words), is_decoder=decoder
        )
        module = BertLMHeadModel(config)
        tiny.spread(module, torch.Generator().manual_seed(0))
        if not decoder:
            with pytest.raises(ValueError, match=r"changing the last token .* not a causal"):
                tk.check(tk.load(module, tokenizer=words))
            continue
        model = tk.load(module, tokenizer=words)
        runs = tk.encode(model, ["Hello there"], template="raw")
        # BERT norms the stream after each addition: nothing it adds is in the output as it is
        for site in ("attention", "mlp"):
            with pytest.raises(ValueError, match=f"site='{site}' was asked for, but at layers"):
                tk.capture(model, runs, [1], site=site, progress=False)
        assert tk.capture(model, runs, [1], tokens="all", progress=False).sizes["dim"] == 32


def test_logits_that_are_not_the_models_own_are_found(fresh_llama):
    seen, batch = seen_by(fresh_llama)
    _check_logits(fresh_llama, seen, batch)
    capped = 3 * torch.tanh(seen["logits"] / 3)
    with pytest.raises(ValueError, match=r"log-probabilities .* by [\d.]+ nats \(bound 0\.0001\)"):
        _check_logits(fresh_llama, {**seen, "logits": capped}, batch)


def test_a_lens_that_the_last_block_alone_does_not_settle_is_refused(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    embedded = []
    module.model.embed_tokens.register_forward_hook(lambda *seen: embedded.append(seen[-1]))
    module.lm_head.register_forward_pre_hook(lambda _, seen: (seen[0] + embedded.pop(),))
    model = tk.load(module, tokenizer=words)
    runs = tk.encode(model, ["Hello there"], template="raw")
    last = tk.capture(model, runs, [3], tokens="all", progress=False)
    with pytest.raises(ValueError, match="they are not made of it alone"):
        tk.unembed(model, last)


def test_padding_that_leaks_into_the_row_is_found(fresh_llama):
    seen, batch = seen_by(fresh_llama)
    _check_single(fresh_llama, seen, batch, 1)
    # the short row as it would be without its mask
    with torch.no_grad():
        unmasked = fresh_llama._module.model(
            input_ids=batch.input_ids,
            attention_mask=torch.ones_like(batch.attention_mask),
            output_hidden_states=True,
        )
    wrong = {**seen, "output": [*unmasked.hidden_states[1:-1], seen["output"][-1]]}
    assert "padding" not in origin(fresh_llama).refused
    _check_single(fresh_llama, wrong, batch, 1)
    refused = origin(fresh_llama).refused["padding"]
    assert re.match(
        r"at layer 0 .* a row of 4 tokens beside one of 7 .* \(bound 0\.0001\)", refused
    )


def test_a_change_that_moves_nothing_is_found(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    with torch.no_grad():
        module.lm_head.weight.zero_()
    with pytest.raises(ValueError, match="moved no logit"):
        tk.check(tk.load(module, tokenizer=words))
    assert len(tk.load(module, tokenizer=words, check=False).layers) == 4


def test_a_base_that_changed_under_the_adapter_is_found(fresh_llama, tiny_lora):
    with tk.adapter(fresh_llama, tiny_lora):
        tk.check(fresh_llama)
        with torch.no_grad():
            fresh_llama._module.model.layers[0].mlp.down_proj.base_layer.weight[0, 0] += 1e-3
        with pytest.raises(ValueError, match=r"switched off, the logits differ by up to [\d.e-]+"):
            tk.check(fresh_llama)


def test_a_messages_three_parts(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][0] = seen["output"][0] + 1
    with pytest.raises(ValueError, match=re.escape(origin(tiny_llama).name)) as caught:
        _check_hidden_states(tiny_llama, seen, batch)
    assert "where 0 was expected" in str(caught.value)
    assert "pass rename=, or check=False" in str(caught.value)


def test_an_adapter_is_proved_without_the_names(tiny_folder, words, tiny_lora):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words, check=False)
    with tk.adapter(model, tiny_lora):
        assert origin(model).unproved is None
        with torch.no_grad():
            model._module.model.layers[0].mlp.down_proj.base_layer.weight[0, 0] += 1e-3
        with pytest.raises(ValueError, match=r"switched off, the logits differ by up to [\d.e-]+"):
            verify_adapter(model)
