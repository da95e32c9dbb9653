"""The checks at load: each passes as it is and fails, by its words, when its subject is wrong."""

import re

import pytest
import torch
from transformers import LlamaForCausalLM

import tracekit as tk
from tracekit.check import (
    _check_hidden_states,
    _check_logits,
    _check_shapes,
    _check_single,
    _check_sum,
    _everything,
    probe,
)
from tracekit.origin import origin

BOUND = 8


class Counting:
    """The number of forwards that the whole model makes inside."""

    def __init__(self, module):
        self.module, self.count = module, 0

    def __enter__(self):
        self.handle = self.module.register_forward_pre_hook(self.add)
        return self

    def add(self, *_):
        self.count += 1

    def __exit__(self, *_):
        self.handle.remove()


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
    # the outputs and transformers' hidden states are the same tensors: a change must not reach both
    seen["output"] = [value.clone() for value in seen["output"]]
    seen["embedding"] = seen["embedding"].clone()
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


def test_a_wrong_embedding_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["embedding"][0, -1] *= 2
    with pytest.raises(ValueError, match="residual, layer -1"):
        _check_hidden_states(tiny_llama, seen, batch)


def test_output_that_is_not_row_column_dim_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    seen["output"][1] = seen["output"][1][0]
    with pytest.raises(ValueError, match=r"layers\[1\] has the shape \(7, 32\), not \(2, 7, 32\)"):
        _check_shapes(tiny_llama, seen, batch)


def test_parts_that_do_not_add_up_are_found_with_both_numbers(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    _check_sum(tiny_llama, seen, batch)
    seen["sum"][1] = seen["sum"][1] * 1.01
    with pytest.raises(ValueError, match=r"layer 1: .* by 0\.01.* of its norm \(bound 0\.0001\)"):
        _check_sum(tiny_llama, seen, batch)


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


def test_padding_that_leaks_into_the_row_is_found(tiny_llama):
    seen, batch = seen_by(tiny_llama)
    _check_single(tiny_llama, seen, batch, 1)
    # the short row as it would be without its mask
    with torch.no_grad():
        unmasked = tiny_llama._module.model(
            input_ids=batch.input_ids,
            attention_mask=torch.ones_like(batch.attention_mask),
            output_hidden_states=True,
        )
    wrong = {**seen, "output": [*unmasked.hidden_states[1:-1], seen["output"][-1]]}
    with pytest.raises(ValueError, match=r"layer 0: row 1 batched with padding .* \(bound 0\.0001"):
        _check_single(tiny_llama, wrong, batch, 1)


def test_a_change_that_moves_nothing_is_found(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    with torch.no_grad():
        module.lm_head.weight.zero_()
    with pytest.raises(ValueError, match="moved no logit"):
        tk.load(module, tokenizer=words)
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
