"""Nothing leaves a loaded model before it is proved, whichever way it is asked."""

from concurrent.futures import ThreadPoolExecutor

import nnsight
import pytest
import torch
from transformers import LlamaForCausalLM

import tracekit as tk
from tests.support.counting import Counting
from tracekit.model.load import model_provenance
from tracekit.model.record import origin
from tracekit.model.weights import weights_fingerprint

BOUND = 8
IDS = torch.tensor([[5, 42, 79, 116]])


@pytest.fixture
def module(tiny_folder):
    return LlamaForCausalLM.from_pretrained(tiny_folder)


@pytest.fixture
def unsound(module, words):
    """A model of which no edit moves a logit, loaded."""
    with torch.no_grad():
        module.lm_head.weight.zero_()
    return tk.load(module, tokenizer=words)


def traced(model):
    with model.trace(IDS):
        logits = nnsight.save(model.output.logits)
    return logits


def in_a_session(model):
    with model.session():
        with model.trace(IDS):
            hidden = model.layers[0].output
        with model.trace(IDS):
            model.layers[0].output = hidden * 2
            logits = nnsight.save(model.output.logits)
    return logits


def captured(model):
    return tk.capture(model, tk.encode(model, ["Hi"], template="raw"), [1], progress=False)


def generated(model):
    runs = tk.encode(model, ["Hi"], template="raw")
    return tk.generate(model, runs, max_new_tokens=1, progress=False)


DOORS = {
    "trace": traced,
    "session": in_a_session,
    "trace at once": lambda model: model.trace(IDS, trace=False),
    "nnsight's generate": lambda model: model.generate(IDS, max_new_tokens=1),
    "capture": captured,
    "generate": generated,
    "provenance": model_provenance,
    "check": tk.check,
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_model_that_fails_its_proof_gives_nothing_and_says_why_each_time(unsound, door):
    for _ in range(2):
        with pytest.raises(tk.InputError, match="moved no logit"):
            door(unsound)


def test_an_adapter_is_not_attached_to_a_model_that_fails_its_proof(unsound, tiny_lora):
    with (
        pytest.raises(tk.InputError, match="moved no logit"),
        tk.adapter(unsound, tiny_lora),
    ):
        pass
    assert origin(unsound).broken is None


# generate proves its own steps besides, see test_stepping
ONCE = {name: door for name, door in DOORS.items() if name != "generate"}


@pytest.mark.parametrize("door", ONCE.values(), ids=ONCE)
def test_the_proof_runs_once_at_the_first_door(module, words, door):
    with Counting(module) as forwards:
        model = tk.load(module, tokenizer=words)
    assert forwards.count == 0
    with Counting(module) as forwards:
        door(model)
    first = forwards.count
    with Counting(module) as forwards:
        door(model)
    assert 5 <= first - (0 if door is tk.check else forwards.count) <= BOUND


def test_the_first_session_gives_what_the_second_does(module, words):
    model = tk.load(module, tokenizer=words)
    first = in_a_session(model)
    assert torch.equal(first, in_a_session(model))
    assert not torch.equal(first, traced(model))


def test_two_threads_that_come_first_wait_for_one_proof(module, words):
    model = tk.load(module, tokenizer=words)
    with Counting(module) as forwards, ThreadPoolExecutor(2) as pool:
        logits = [task.result() for task in [pool.submit(traced, model) for _ in range(2)]]
    assert torch.equal(*logits)
    assert forwards.count <= BOUND + 2


def test_a_part_that_is_traced_by_itself_waits_for_the_proof(module, words):
    model, hidden = tk.load(module, tokenizer=words), torch.ones(1, 3, 32)

    def part():
        with model.layers[1].mlp.trace(hidden):
            output = nnsight.save(model.layers[1].mlp.output)
        return output

    with pytest.raises(tk.InputError, match=r"A part of .* Call tracekit.check\(model\) first"):
        part()
    tk.check(model)
    assert torch.equal(part(), module.model.layers[1].mlp(hidden))


def test_a_scan_holds_no_values_and_needs_no_proof(unsound):
    with unsound.scan(IDS):
        shape = nnsight.save(unsound.output.logits.shape)
    assert tuple(shape)[:2] == (1, 4)


def test_an_edit_made_in_place_before_the_proof_is_not_what_is_proved(module, words):
    plain = module(IDS).logits
    model = tk.load(module, tokenizer=words)
    with model.edit(inplace=True):
        model.layers[0].output[:] = 0
    edited = traced(model)
    assert not torch.equal(edited, plain)
    assert not origin(model).refused
    model.clear_edits()
    assert torch.equal(traced(model), plain)


def test_a_proof_that_was_interrupted_is_run_again(module, words):
    model, raised = tk.load(module, tokenizer=words), []

    def interrupt(*_):
        raised.append(None)
        if len(raised) == 3:
            raise KeyboardInterrupt

    handle = module.model.layers[2].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        captured(model)
    assert origin(model).is_pending
    captured(model)
    handle.remove()
    assert not origin(model).is_pending
    assert len(raised) > BOUND


def test_weights_are_those_before_an_adapter_that_nnsight_attached(tiny_folder, words, tiny_lora):
    plain = LlamaForCausalLM.from_pretrained(tiny_folder)
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words)
    model.load_adapter(str(tiny_lora))
    assert origin(model).weights == weights_fingerprint(plain)
    with torch.no_grad():
        plain.model.norm.weight[0] += 1e-3
    assert origin(model).weights != weights_fingerprint(plain)
