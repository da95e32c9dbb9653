"""Attention's pattern: what it is of, who is asked for it, and that the model uses it."""

import numpy as np
import pytest
import torch
from transformers.models.llama import modeling_llama

import tracekit as tk
from tests.support.oracles import reference

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]


@pytest.fixture
def runs(fresh_llama):
    return tk.encode(fresh_llama, TEXTS, ["It does.", "No, it never was."])


def pattern(model, runs, **options):
    return tk.capture(model, runs, [0, 2], site="pattern", progress=False, **options)


def test_queries_and_keys_are_the_labels_of_tokens(fresh_llama, runs):
    found = pattern(fresh_llama, runs)
    assert found.dims == ("prompt", "query", "layer", "head", "key")
    # the response and the last prompt token look at everything before them
    assert found["query"].values.tolist() == list(range(-1, int(runs.token.max()) + 1))
    assert found["key"].values.tolist() == runs.token.values.tolist()
    assert (
        found["token_id"].sel(query=0).values.tolist() == runs.token_id.sel(token=0).values.tolist()
    )
    for row in range(2):
        one = found.isel(prompt=row, layer=1, head=2).sel(query=0)
        # a distribution over the prompt and the token itself
        assert one.sum("key").item() == pytest.approx(1, abs=1e-5)
        visible = one["key"].values[one.notnull().values].tolist()
        assert visible == list(range(-int(runs.prompt_length[row]), 1))
    shorter = (runs.token_id.sel(token=slice(0, None)).values >= 0).sum(1).argmin()
    hole = found.isel(prompt=shorter, query=-1)
    assert hole["role"].item() == "pad"
    assert not hole.notnull().any()


def test_attention_is_eager_for_the_pattern_alone(fresh_llama, runs):
    config = fresh_llama._module.config
    before = config._attn_implementation
    assert before != "eager"
    values = tk.capture(fresh_llama, runs, [2], progress=False)
    found = pattern(fresh_llama, runs)
    assert tk.provenance(found)["attn_implementation"] == "eager"
    assert config._attn_implementation == before
    again = tk.capture(fresh_llama, runs, [2], progress=False)
    assert np.array_equal(values, again, equal_nan=True)
    assert "attn_implementation" not in tk.provenance(again)


def test_attention_is_restored_when_a_capture_fails(fresh_llama, runs, monkeypatch):
    config, before = fresh_llama._module.config, fresh_llama._module.config._attn_implementation
    pattern(fresh_llama, runs)

    def broken(*_, **__):
        assert config._attn_implementation == "eager"
        raise RuntimeError("in the middle")

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        pattern(fresh_llama, runs)
    assert config._attn_implementation == before
    monkeypatch.undo()
    assert pattern(fresh_llama, runs).sizes["layer"] == 2


def test_one_entry_that_changes_moves_the_logits(tiny_folder, words, monkeypatch):
    """In plain torch: the pattern that is read is the one that the values are mixed by."""
    model, inputs = reference.load(tiny_folder), reference.padded(words, TEXTS)
    model.set_attn_implementation("eager")
    plain = modeling_llama.eager_attention_forward
    seen, nudge = {}, 0.0

    def spy(module, query, key, value, mask, scaling, **kwargs):
        _, weights = plain(module, query, key, value, mask, scaling, **kwargs)
        weights = weights.clone()
        if module.layer_idx == 2:
            weights[0, 1, -1, 3] += nudge
        seen[module.layer_idx] = weights
        values = modeling_llama.repeat_kv(value, module.num_key_value_groups)
        return (weights @ values).transpose(1, 2).contiguous(), weights

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", spy)
    with torch.no_grad():
        straight = model(**inputs).logits
        expected = seen[2].clone()
        nudge = 0.1
        moved = model(**inputs).logits
    monkeypatch.undo()
    ours = tk.load(tiny_folder, dtype="float32", tokenizer=words)
    found = tk.capture(
        ours,
        tk.encode(ours, TEXTS, template="raw"),
        [2],
        site="pattern",
        tokens="all",
        progress=False,
    )
    entry = found.isel(prompt=0, layer=0, head=1, query=-1, key=3).item()
    assert abs(entry - expected[0, 1, -1, 3].item()) < 1e-6
    assert (moved - straight)[0, -1].abs().max() > 1e-3
    assert torch.equal(moved[1], straight[1])
    assert torch.equal(moved[0, :-1], straight[0, :-1])
    # the twin: the changed pattern is not the one that is read
    assert abs(entry - seen[2][0, 1, -1, 3].item()) > 0.05
