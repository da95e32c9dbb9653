"""A change of the weights: to its end, or never begun, or the model says so at every call."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import tracekit as tk
from experiments.benchmarks import interruptions
from tracekit.model.adapters.layers import current_adapter, turn
from tracekit.model.adapters.snapshot import Switches
from tracekit.model.adapters.switch import switch
from tracekit.model.adapters.transition import change
from tracekit.model.load import model_provenance
from tracekit.model.record import recorded
from tracekit.model.weights import weights_fingerprint

PROJECTION = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return interruptions.build(tmp_path_factory.mktemp("interruptions"))


@pytest.fixture
def runs(fresh_llama):
    return tk.encode(fresh_llama, ["Where is Paris?"], template="raw")


def residual(model, runs, **options):
    return tk.capture(model, runs, tokens="all", progress=False, **options).values


def elsewhere(parameter):
    parameter.data = parameter.data * 1.5


def in_place(parameter):
    with torch.no_grad():
        parameter.mul_(1.5)


def broken_off(model, name, write, error):
    """A change that writes over a weight, and then raises."""

    def action():
        write(model._module.get_parameter(name))
        raise error

    with pytest.raises(type(error)):
        change(model, "attaching 'this one'", action)


@pytest.mark.filterwarnings("ignore")
def test_twenty_interruptions_leave_the_state_that_was(subject):
    rows = interruptions.measure(subject, 20, seed=1)
    found = [kind for _, _, kind in rows]
    assert len(found) == 20
    assert set(found) <= {interruptions.BEFORE, interruptions.POISONED}
    assert found.count(interruptions.BEFORE) >= 15


@pytest.mark.filterwarnings("ignore")
def test_the_harness_sees_another_state(subject):
    # the twin: one bit of one weight
    assert subject.outcome() == interruptions.BEFORE
    weight = next(iter(subject.weights.values()))
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[5, 0] += 1e-3
        assert subject.outcome().startswith(interruptions.OTHER)
        weight.copy_(kept)
    assert subject.outcome() == interruptions.BEFORE


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), SystemExit(), MemoryError()]
)
@pytest.mark.parametrize(
    ("name", "write"), [(PROJECTION, elsewhere), (NORM, elsewhere), (NORM, in_place)]
)
def test_what_was_written_is_put_back_bit_for_bit(tiny_llama, name, write, error):
    before = weights_fingerprint(tiny_llama._module)
    broken_off(tiny_llama, name, write, error)
    assert weights_fingerprint(tiny_llama._module) == before
    assert model_provenance(tiny_llama)["adapter"] is None
    # the twin: the write shows in the fingerprint
    kept = tiny_llama._module.get_parameter(name).data.clone()
    elsewhere(tiny_llama._module.get_parameter(name))
    assert weights_fingerprint(tiny_llama._module) != before
    tiny_llama._module.get_parameter(name).data = kept


def test_a_change_that_writes_over_the_base_and_says_nothing_is_refused(fresh_llama):
    before = weights_fingerprint(fresh_llama._module)
    for name, write in ((PROJECTION, elsewhere), (NORM, in_place)):
        with pytest.raises(ValueError, match=f"wrote over 1 weights .* {name}"):
            change(
                fresh_llama, "this", lambda n=name, w=write: w(fresh_llama._module.get_parameter(n))
            )
        assert weights_fingerprint(fresh_llama._module) == before


def test_a_state_that_cannot_be_put_back_is_said_by_every_call(fresh_llama, runs, tiny_lora):
    vector = xr.DataArray(np.ones(32, np.float32), dims="dim", coords={"layer": 1})
    edited = tk.steer(fresh_llama, vector, coefficient=0.0, tokens="all")
    broken_off(fresh_llama, PROJECTION, in_place, KeyboardInterrupt())
    calls = [
        lambda m: tk.capture(m, runs, progress=False),
        lambda m: tk.generate(m, runs, max_new_tokens=1, progress=False),
        lambda m: tk.capture_during(m, runs, max_new_tokens=1, progress=False),
        lambda m: tk.logprobs(m, runs),
        lambda m: tk.gradients(m, runs, towards="Yes", against="No"),
        lambda m: tk.unembed(m, vector),
        lambda m: tk.steer(m, vector, coefficient=1.0),
        lambda m: tk.ablate(m, vector),
        lambda m: tk.residual_norm(m, runs),
        lambda m: tk.check(m),
        lambda m: switch(m, tiny_lora),
        lambda m: tk.adapter(m, None).__enter__(),
        lambda m: m.generate(tk.inputs(runs), max_new_tokens=1),
        model_provenance,
        traced,
    ]
    for model in (fresh_llama, edited):
        for call in calls:
            with pytest.raises(
                RuntimeError, match=r"attaching 'this one' was broken off.*Load the"
            ):
                call(model)


def traced(model):
    with model.trace("Hello"):
        model.layers[0].output.save()


def test_an_adapter_retrained_in_its_folder_is_read_again(fresh_llama, runs, tiny_lora, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(tiny_lora, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    with tk.adapter(fresh_llama, folder):
        first, made = residual(fresh_llama, runs), model_provenance(fresh_llama)["adapter"]
    with tk.adapter(fresh_llama, folder):
        assert np.array_equal(residual(fresh_llama, runs), first)
    # nothing else was attached in between
    save_file({k: v * 2 for k, v in weights.items()}, folder / "adapter_model.safetensors")
    with tk.adapter(fresh_llama, folder):
        assert not np.array_equal(residual(fresh_llama, runs), first)
        assert model_provenance(fresh_llama)["adapter"]["weights"] != made["weights"]


def test_the_end_of_a_block_gives_back_what_was_on_whatever_became_of_its_files(
    fresh_llama, runs, tiny_lora, tmp_path
):
    folder = tmp_path / "own"
    shutil.copytree(tiny_lora, folder)
    with tk.adapter(fresh_llama, folder):
        on, made = residual(fresh_llama, runs), model_provenance(fresh_llama)["adapter"]
        with tk.adapter(fresh_llama, tiny_lora):
            weights = load_file(folder / "adapter_model.safetensors")
            save_file({k: v * 2 for k, v in weights.items()}, folder / "adapter_model.safetensors")
            with tk.adapter(fresh_llama, folder):
                assert not np.array_equal(residual(fresh_llama, runs), on)
        assert np.array_equal(residual(fresh_llama, runs), on)
        assert model_provenance(fresh_llama)["adapter"] == made
        with tk.adapter(fresh_llama, None):
            shutil.rmtree(folder)
        assert np.array_equal(residual(fresh_llama, runs), on)
    assert current_adapter(fresh_llama) is None


def test_nothing_of_an_adapter_is_left_on_the_module_that_takes_its_place(fresh_llama, tiny_lora):
    tk.check(fresh_llama)
    before = {id(m): set(m.__dict__) for m in fresh_llama._module.modules()}
    switch(fresh_llama, tiny_lora)
    recorded(fresh_llama).bare.restore()
    after = {id(m): set(m.__dict__) for m in fresh_llama._module.modules()}
    assert {i: keys - {"tracekit_rows"} for i, keys in after.items()} == {
        i: keys - {"tracekit_rows"} for i, keys in before.items()
    }


def flags(model):
    """What a switch may touch, by module and parameter."""
    parts = {
        name: (part.training, getattr(part, "_disable_adapters", None))
        for name, part in model._module.named_modules()
    }
    return parts, {name: p.requires_grad for name, p in model._module.named_parameters()}


def test_a_switch_that_is_broken_off_leaves_every_flag_as_it_was(fresh_llama, tiny_lora):
    switch(fresh_llama, tiny_lora)
    before, module = flags(fresh_llama), fresh_llama._module
    count = interruptions.events(lambda: turn(module, False))
    turn(module, True)
    assert flags(fresh_llama) == before
    for at in range(0, count, max(count // 20, 1)):
        halfway = []

        def action(at=at, halfway=halfway):
            hit = interruptions.interrupted(lambda: turn(module, False), at, None, None)
            halfway.append(flags(fresh_llama))
            assert hit
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            change(fresh_llama, "a switch", action, Switches)
        assert flags(fresh_llama) == before
    # the twin: the last interrupt left other flags, until they were put back
    assert halfway[0] != before
