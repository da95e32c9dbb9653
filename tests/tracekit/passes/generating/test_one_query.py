"""A step of generation on a CPU attends by two products, and says what the fused kernel says."""

import threading

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import tracekit as tk
from tracekit.model.record import origin
from tracekit.passes.generating import generation, one_query, stepping

TEXTS = ["The quick brown fox jumps over", "Yes", "a b c d e f g h"]


@pytest.fixture
def model(words):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    module = LlamaForCausalLM(config).eval()
    return tk.load(module, tokenizer=words)


class Module(torch.nn.Module):
    num_key_value_groups, is_causal = 3, True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize("masked", [True, False])
def test_it_is_what_torch_computes(dtype, columns, masked):
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(4, columns, 6, 8, generator=draw).to(dtype).transpose(1, 2)
    key, value = (torch.randn(4, 2, 7, 8, generator=draw).to(dtype) for _ in range(2))
    mask = None
    if masked:
        mask = torch.ones(4, 1, columns, 7, dtype=torch.bool)
        mask[1, ..., :3] = mask[3, ..., :6] = False
    given = Module(), query, key, value, mask
    ours, weights = one_query._attend(*given, scaling=0.3)
    theirs, _ = sdpa_attention_forward(*given, scaling=0.3)
    assert weights is None
    assert ours.shape == theirs.shape == (4, columns, 6, 8)
    torch.testing.assert_close(ours, theirs, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)


def test_an_additive_mask_is_left_to_torch():
    query, key = torch.randn(2, 6, 1, 8), torch.randn(2, 2, 7, 8)
    given = Module(), query, key, key, torch.randn(2, 1, 1, 7)
    assert torch.equal(one_query._attend(*given)[0], sdpa_attention_forward(*given)[0])


def test_generation_says_the_same_by_it(model, monkeypatch):
    runs = tk.encode(model, TEXTS, template="raw")
    seen = []
    attend = one_query._attend

    def watched(module, query, *rest, **options):
        seen.append(query.shape[2])
        return attend(module, query, *rest, **options)

    monkeypatch.setitem(one_query.AttentionInterface._global_mapping, one_query.ONE_QUERY, watched)
    quick = tk.generate(model, runs, max_new_tokens=6, progress=False)
    assert "quick steps" in origin(model).proved
    assert seen.count(1) > 2 * 5
    monkeypatch.setattr(generation, "quick_steps", lambda *given: False)
    seen.clear()
    own = tk.generate(model, runs, max_new_tokens=6, progress=False)
    assert not seen
    assert quick.token_id.values.tolist() == own.token_id.values.tolist()
    assert model._module.config._attn_implementation == "sdpa"


def test_a_model_that_attends_otherwise_under_it_keeps_its_own_way(model, monkeypatch):
    runs = tk.encode(model, TEXTS, template="raw")

    def wrong(module, query, *rest, **options):
        return one_query._attend(module, -query, *rest, **options)

    monkeypatch.setitem(one_query.AttentionInterface._global_mapping, one_query.ONE_QUERY, wrong)
    made = tk.generate(model, runs, max_new_tokens=6, progress=False)
    assert "own steps" in origin(model).proved
    monkeypatch.setattr(generation, "quick_steps", lambda *given: False)
    own = tk.generate(model, runs, max_new_tokens=6, progress=False)
    assert made.token_id.values.tolist() == own.token_id.values.tolist()


def test_an_attention_that_was_chosen_is_kept(model):
    model._module.set_attn_implementation("eager")
    runs = tk.encode(model, TEXTS, template="raw")
    tk.generate(model, runs, max_new_tokens=2, progress=False)
    assert not {"quick steps", "own steps"} & origin(model).proved
    assert not stepping.quick_steps(model, generation._steps)
    with one_query.one_query(model):
        assert model._module.config._attn_implementation == "eager"


def test_a_thread_beside_a_generation_waits_for_the_answer(model):
    tk.generate(model, tk.encode(model, TEXTS, template="raw"), max_new_tokens=2, progress=False)
    found = []
    other = threading.Thread(
        target=lambda: found.append(stepping.quick_steps(model, generation._steps))
    )
    with one_query.one_query(model):
        other.start()
        other.join(0.3)
        assert not found
    other.join(60)
    assert found == [True]
