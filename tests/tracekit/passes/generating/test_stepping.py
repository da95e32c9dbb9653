"""A model that writes what its own forwards do not predict is refused, and no other one."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tracekit as tk
from tests.support.oracles import every_kind
from tracekit.model import names
from tracekit.model.record import origin
from tracekit.passes.generating import generation, stepping


def greedy(folder, ids, count):
    """The argmax of plain forwards, one after another, without a cache."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def predicted(folder, batch, count):
    """The logits of those forwards, each row alone: (row, step, vocabulary)."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask.bool(), strict=True):
        whole = [*ids[mask].tolist(), *greedy(folder, ids[mask].tolist(), count)]
        with torch.no_grad():
            rows.append(plain(input_ids=torch.tensor([whole])).logits[0, mask.sum() - 1 : -1])
    return torch.stack(rows)


def test_roberta_counts_other_positions_while_it_generates(tmp_path):
    model = tk.load(every_kind.build("roberta", tmp_path / "roberta"), dtype="float32")
    runs = tk.encode(model, ["The quick brown fox", "Yes"], template="raw")
    assert tk.logprobs(model, runs).notnull().any()
    for _ in range(2):
        with pytest.raises(ValueError, match="counts positions in another way"):
            tk.generate(model, runs, max_new_tokens=3, progress=False)


def test_what_generates_by_its_own_forwards_is_proved_once(tiny_folder, words):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words)
    runs = tk.encode(model, ["The quick brown fox"], template="raw")
    asked = []

    def step(model, batch, count):
        asked.append(batch)
        return predicted(tiny_folder, batch, count)

    for _ in range(2):
        stepping.require_steps(model, step)
    assert [len(batch.input_ids) for batch in asked] == [1, 2]
    assert "padding" not in origin(model).refused
    made = tk.generate(model, runs, max_new_tokens=3, progress=False)
    ids = made.token_id.values[0]
    assert ids[-3:].tolist() == greedy(tiny_folder, ids[:-3].tolist(), 3)


def test_one_other_prediction_is_seen(tiny_folder, words):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words)

    def step(model, batch, count):
        steps = predicted(tiny_folder, batch, count)
        steps[0, 2] = steps[0, 2].flip(0)
        return steps

    with pytest.raises(ValueError, match="at step 2 its prediction is"):
        stepping.require_steps(model, step)


def test_a_head_that_is_called_output_is_found_where_nnsight_keeps_it(tmp_path):
    folder = every_kind.build("git", tmp_path / "git")
    module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    assert names.by_structure(module)["E_output"] == "lm_head"
    model = tk.load(folder, dtype="float32")
    assert model.lm_head._module is model._module.get_output_embeddings()


def test_steps_that_padding_changes_make_rows_go_one_by_one(tmp_path):
    folder = every_kind.build("git", tmp_path / "git")
    model = tk.load(folder, dtype="float32")
    runs = tk.encode(model, ["The quick brown fox jumps over", "Yes"], template="raw")
    made = tk.generate(model, runs, max_new_tokens=4, progress=False)
    assert "nats from that of its own forward" in origin(model).refused["padding"]
    for before, after in zip(runs.token_id.values, made.token_id.values, strict=True):
        ids = before[before >= 0].tolist()
        assert after[after >= 0].tolist()[len(ids) :] == greedy(folder, ids, 4)


def test_a_model_that_would_end_at_once_is_not_taken_for_one_of_wrong_steps(fresh_llama):
    batch = stepping.probe(fresh_llama)
    with torch.no_grad():
        likeliest = fresh_llama._module(batch.input_ids[:1]).logits[0, -1].argmax()
    fresh_llama._module.generation_config.eos_token_id = int(likeliest)
    steps = generation._steps(fresh_llama, stepping._first(batch), 3)
    assert steps[0, 0].argmax() == likeliest
    whole = torch.cat([batch.input_ids[0], steps[0].argmax(-1)[:-1]])
    with torch.no_grad():
        forward = fresh_llama._module(whole[None], use_cache=False).logits[0, -3:]
    torch.testing.assert_close(steps[0], forward, atol=1e-3, rtol=0)
