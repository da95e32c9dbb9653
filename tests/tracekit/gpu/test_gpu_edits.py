"""On a CUDA device: edits, readouts, where a model lies, and what a pass leaves behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import forwards, steering
from tests.support.devices import gap, unlike
from tests.support.forwards import QUIET
from tests.support.oracles import reference
from tests.support.steering import LAYER
from tracekit.passes import batching

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs where a CUDA device is"),
]
CPU = {"device_map": "cpu"}


@pytest.mark.parametrize("dtype", ["float32", "nf4"])
def test_steering_under_a_cache_is_a_replay_of_what_it_said(
    dtype: str, folder: Path, words: Any
) -> None:
    model = tk.load(folder, dtype=dtype, tokenizer=words)
    asked = tk.encode(model, steering.PROMPTS)
    vector = steering.unit_vectors(model).sel(layer=LAYER)
    plain = tk.generate(model, asked, max_new_tokens=steering.NEW, **QUIET)
    size = steering.mean_norm(model, plain, LAYER)
    edited = tk.steer(model, vector, coefficient=2 * size)
    said = tk.generate(edited, asked, max_new_tokens=steering.NEW, **QUIET)
    assert steering.response_ids(said) != steering.response_ids(plain)
    before, after = (
        xr.dot(tk.capture(m, said, [LAYER], **QUIET), vector, dim="dim").values
        for m in (model, edited)
    )
    rise = (after - before)[np.isfinite(after)]
    np.testing.assert_allclose(rise, 2 * size, rtol=0.01 if dtype == "float32" else 0.05)


def test_steered_ids_are_the_cpus(gpu: Any, cpu: Any) -> None:
    asked = tk.encode(cpu, steering.PROMPTS)
    vector = steering.unit_vectors(cpu).sel(layer=LAYER)
    found = []
    for model, coefficient in ((gpu, 4.0), (cpu, 4.0), (cpu, -4.0)):
        edited = tk.steer(model, vector, coefficient=coefficient)
        said = tk.generate(edited, asked, max_new_tokens=steering.NEW, **QUIET)
        found.append(steering.response_ids(said))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("edit", [tk.ablate, tk.clamp, tk.patch])
def test_other_edits_are_the_cpus(
    edit: Any, gpu: Any, cpu: Any, runs: xr.Dataset, expected: xr.DataArray
) -> None:
    vector = steering.unit_vectors(cpu).sel(layer=1)
    made = {
        tk.ablate: lambda m: tk.ablate(m, vector, tokens="all"),
        tk.clamp: lambda m: tk.clamp(m, vector, low=0.5, high=0.6, tokens="all"),
        tk.patch: lambda m: tk.patch(m, expected.sel(layer=[1]) * 1.5),
    }[edit]
    here, there = (tk.capture(made(m), runs, **QUIET) for m in (gpu, cpu))
    assert gap(here, there) < 1e-4
    assert gap(here, expected) > 1e-3


def test_readouts_are_the_cpus(gpu: Any, cpu: Any, runs: xr.Dataset) -> None:
    here, there = (tk.logprobs(m, runs).values for m in (gpu, cpu))
    np.testing.assert_allclose(here, there, atol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(here, unlike(there), atol=1e-4)
    here, there = (tk.gradients(m, runs, towards=" Yes", against=" No") for m in (gpu, cpu))
    assert np.nanmax(abs(here - there)) < 1e-4 * np.nanmax(abs(there))
    seen = tk.capture(gpu, runs, [3], tokens=slice(-1, -1), **QUIET).isel(token=0, layer=0)
    lens = [tk.unembed(m, seen) for m in (gpu, cpu)]
    np.testing.assert_array_equal(lens[0].token_id, lens[1].token_id)


def test_blocks_on_several_devices_are_as_on_one(
    folder: Path, words: Any, lora: Path, runs: xr.Dataset, expected: xr.DataArray
) -> None:
    places = {f"model.layers.{n}": 0 if n < 2 else "cpu" for n in range(4)}
    places |= {
        "model.embed_tokens": 0,
        "model.norm": "cpu",
        "lm_head": "cpu",
        "model.rotary_emb": 0,
    }
    model = tk.load(folder, dtype="float32", tokenizer=words, device_map=places)
    assert {p.device.type for p in model._module.parameters()} >= {"cuda"}
    assert gap(tk.capture(model, runs, **QUIET), expected) < 1e-5
    assert gap(expected, unlike(expected)) > 1e-3
    # peft's weights would not land in what is offloaded
    with pytest.raises(ValueError, match="offloaded"), tk.adapter(model, lora):
        pass


@pytest.mark.parametrize("where", ["cpu", {"": "cpu"}, {"": 0}, "cuda:0", torch.device("cpu")])
def test_a_model_lies_where_it_was_asked_for(where: Any, folder: Path, words: Any) -> None:
    model = tk.load(folder, dtype="float32", tokenizer=words, device_map=where)
    asked = where[""] if isinstance(where, dict) else where
    assert {p.device for p in model._module.parameters()} == {torch.device(asked)}


def test_a_module_stays_where_it_is(folder: Path, words: Any) -> None:
    module = reference.load(folder).to("cpu")
    tk.load(module, tokenizer=words)
    assert {p.device.type for p in module.parameters()} == {"cpu"}


def test_a_cards_peak_is_counted_before_its_first_use() -> None:
    code = "from experiments.benchmarks.measuring import peak; peak.reset(); print(peak.peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_full_card_takes_its_rows_in_halves() -> None:
    free, _ = torch.cuda.mem_get_info()
    sizes: list[int] = []

    def compute(rows: Any) -> int:
        torch.empty(len(rows) * (free // 3), dtype=torch.uint8, device="cuda")
        sizes.append(len(rows))
        return len(rows)

    parts = list(batching.run([0, 1, 2, 3], compute))
    assert [list(rows) for rows, _ in parts] == [[0, 1], [2, 3]]
    assert sizes == [2, 2]
    with pytest.raises(MemoryError, match="One row alone does not fit"):
        list(
            batching.run([0], lambda rows: torch.empty(2 * free, dtype=torch.uint8, device="cuda"))
        )


def test_a_pass_leaves_nothing_on_the_card(gpu: Any, runs: xr.Dataset) -> None:
    def passes() -> int:
        tk.capture(gpu, runs, **QUIET)
        tk.logprobs(gpu, runs)
        return torch.cuda.memory_allocated()

    passes()
    gc.collect()
    gc.disable()
    try:
        held = [passes() for _ in range(4)]
    finally:
        gc.enable()
    assert len(set(held)) == 1


def test_a_value_that_is_not_finite_is_refused_by_name(folder: Path, words: Any) -> None:
    model = tk.load(folder, dtype="float32", tokenizer=words)
    runs = forwards.encoded(model)
    with torch.no_grad():
        model._module.model.layers[2].mlp.down_proj.weight[:] = float("inf")
    with pytest.raises(ValueError, match="layer 2"):
        tk.capture(model, runs, **QUIET)
    marked = tk.capture(model, runs, [1, 2], nonfinite="mark", **QUIET)
    assert np.isfinite(marked.sel(layer=1).values[marked.token_id.values >= 0]).all()
