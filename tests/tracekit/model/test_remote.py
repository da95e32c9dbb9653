"""The remote path, run here: what a capture runs in a trace is shipped without tracekit."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support.oracles import probes
from tracekit.storage.provenance import stamp

TEXTS = ["Where is Paris?", "Hi"]


@pytest.fixture(scope="module")
def remote(tiny_folder, words):
    return tk.load(tiny_folder, dtype="float32", tokenizer=words, remote="local")


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, template="raw")


def vectors():
    values = np.random.default_rng(0).normal(size=(2, 4, 32)).astype(np.float32)
    coords = {"trait": ["a/b", "c/d"], "layer": range(4)}
    return stamp(xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords), {})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"site": "attention"},
        {"site": lambda block: block.attn.q_proj.output},
        {"reduce": "mean"},
        {"reduce": lambda values: values.amax(0)},
        {"vectors": vectors()},
        {"site": "heads"},
        {"site": "keys"},
    ],
    ids=["residual", "attention", "function", "mean", "reducer", "vectors", "heads", "keys"],
)
def test_a_capture_travels(tiny_llama, remote, runs, options):
    options = {**options, "tokens": "all", "progress": False}
    here, there = tk.capture(tiny_llama, runs, **options), tk.capture(remote, runs, **options)
    assert np.array_equal(here.values, there.values, equal_nan=True)


@pytest.mark.parametrize("kind", probes.KINDS)
def test_scores_of_a_probe_travel(tiny_llama, remote, runs, kind):
    probe = probes.made(tk.capture(tiny_llama, runs, tokens="all", progress=False), kind)
    options = {"probes": probe, "tokens": "all", "progress": False}
    here, there = tk.capture(tiny_llama, runs, **options), tk.capture(remote, runs, **options)
    assert np.array_equal(here.values, there.values, equal_nan=True)


def test_logprobs_generation_and_adapters_travel(tiny_llama, remote, runs, tiny_lora):
    assert np.array_equal(
        tk.logprobs(tiny_llama, runs).values, tk.logprobs(remote, runs).values, equal_nan=True
    )
    options = {"max_new_tokens": 4, "progress": False}
    assert tk.generate(tiny_llama, runs, **options).token_id.equals(
        tk.generate(remote, runs, **options).token_id
    )
    bare = tk.capture(remote, runs, [3], progress=False)
    with tk.adapter(tiny_llama, tiny_lora), tk.adapter(remote, tiny_lora):
        here = tk.capture(tiny_llama, runs, [3], progress=False)
        there = tk.capture(remote, runs, [3], progress=False)
    assert np.array_equal(here.values, there.values, equal_nan=True)
    assert not np.array_equal(there.values, bare.values, equal_nan=True)


def test_edits_do_not_travel(remote):
    vector = xr.DataArray(np.ones(32, np.float32), dims="dim", coords={"layer": 1})
    with pytest.raises(ValueError, match="edits do not travel"):
        tk.steer(remote, vector, coefficient=1.0)


def test_a_remote_model_is_a_skeleton_with_names_and_adapters(tiny_folder, words, tiny_lora):
    model = tk.load(tiny_folder, tokenizer=words, remote=True)
    assert len(model.layers) == 4
    assert next(model._module.parameters()).is_meta
    with tk.adapter(model, tiny_lora):
        assert model._remoteable_get_env()["peft"] == str(tiny_lora)
        with tk.adapter(model, None):
            assert "peft" not in model._remoteable_get_env()
    assert "peft" not in model._remoteable_get_env()
