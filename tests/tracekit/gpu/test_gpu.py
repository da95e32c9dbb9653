"""On a CUDA device: what the CPU gives, on the way to memory and to disk, and with an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import steering
from tests.support.devices import gap, in_16_bits, unlike
from tests.support.forwards import QUIET
from tests.support.oracles import reference
from tracekit.model.weights import weights_fingerprint
from tracekit.storage.provenance import read

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs where a CUDA device is"),
]
CPU = {"device_map": "cpu"}


def test_the_devices_are_those_that_are_compared(gpu: Any, cpu: Any) -> None:
    assert {p.device.type for p in gpu._module.parameters()} == {"cuda"}
    assert {p.device.type for p in cpu._module.parameters()} == {"cpu"}
    assert weights_fingerprint(gpu._module) == weights_fingerprint(cpu._module)


@pytest.mark.parametrize("budget", [None, 48])
def test_float32_is_the_cpus(
    gpu: Any, runs: xr.Dataset, expected: xr.DataArray, budget: int | None
) -> None:
    found = tk.capture(gpu, runs, token_budget=budget, **QUIET)
    assert gap(found, expected) < 1e-5
    assert gap(found, unlike(expected)) > 1e-3


def test_bfloat16_is_near_the_cpus(folder: Path, words: Any, runs: xr.Dataset) -> None:
    here, there = (
        tk.capture(tk.load(folder, dtype="bfloat16", tokenizer=words, **where), runs, **QUIET)
        for where in ({}, CPU)
    )
    assert gap(here, there) < 0.05
    assert gap(here, there.values[:, :, ::-1]) > 0.5


@pytest.mark.parametrize("writers", [0, 2, None])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_has_what_the_memory_has(
    dtype: str,
    writers: int | None,
    folder: Path,
    words: Any,
    runs: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracekit.passes.batching.GPU_SOON", 0)  # a file a batch
    model = tk.load(folder, dtype=dtype, tokenizer=words)
    memory = tk.capture(model, runs, token_budget=48, **QUIET)
    options = {"token_budget": 48, "path": tmp_path / "x", "writers": writers, **QUIET}
    disk = tk.capture(model, runs, **options)
    assert len(list((tmp_path / "x").glob("*.nc"))) > 4
    xr.testing.assert_identical(disk.sel(prompt=memory.prompt).compute(), memory)
    plain = xr.open_mfdataset(
        str(tmp_path / "x" / "*.nc"), combine="nested", concat_dim="prompt", join="exact"
    )
    np.testing.assert_array_equal(plain[memory.name].sel(prompt=memory.prompt), memory)


def test_what_is_reduced_on_the_device_is_what_is_reduced_here(
    gpu: Any, runs: xr.Dataset, expected: xr.DataArray
) -> None:
    vectors = steering.unit_vectors(gpu).expand_dims(trait=["a/b"])
    along = tk.capture(gpu, runs, vectors=vectors, **QUIET)
    right = xr.dot(expected, vectors, dim="dim").transpose(*along.dims)
    np.testing.assert_allclose(along, right, atol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(along, unlike(right), atol=1e-4)
    mean = tk.capture(gpu, runs, reduce="mean", **QUIET)
    own = expected.sel(token=slice(0, None)).mean("token")
    assert gap(mean, own) < 1e-5
    assert gap(mean, expected.mean("token")) > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "nf4", "int8"])
def test_an_adapter_leaves_the_base_bit_for_bit(
    dtype: str, folder: Path, lora: Path, words: Any, runs: xr.Dataset
) -> None:
    model = tk.load(folder, dtype=dtype, tokenizer=words)
    before = weights_fingerprint(model._module)
    bare = tk.capture(model, runs, **QUIET)
    assert read(bare)["dtype"] == dtype
    with tk.adapter(model, lora):
        adapted = tk.capture(model, runs, **QUIET)
        with tk.adapter(model, None):
            np.testing.assert_array_equal(tk.capture(model, runs, **QUIET), bare)
        np.testing.assert_array_equal(tk.capture(model, runs, **QUIET), adapted)
    np.testing.assert_array_equal(tk.capture(model, runs, **QUIET), bare)
    assert gap(adapted, bare) > 0.01
    fresh = tk.load(folder, dtype=dtype, tokenizer=words)
    assert weights_fingerprint(fresh._module) == before
    np.testing.assert_array_equal(tk.capture(fresh, runs, **QUIET), bare)


@pytest.mark.parametrize("dtype", ["float32", "nf4", "int8"])
def test_an_adapter_gives_what_peft_gives(
    dtype: str, folder: Path, lora: Path, words: Any, tmp_path: Path
) -> None:
    if dtype == "nf4":
        lora = in_16_bits(lora, tmp_path / "lora")
    texts = ("Where is Paris in the world?", "Hi")
    model = tk.load(folder, dtype=dtype, adapter=lora, tokenizer=words)
    runs = tk.encode(model, texts, template="raw")
    inputs = reference.padded(words, texts)
    for name in (lora, None):
        with tk.adapter(model, name):
            traces = tk.capture(model, runs, [2], tokens="all", **QUIET).isel(layer=0)
        flat = torch.as_tensor(traces.values[runs.token_id.values >= 0])
        theirs = reference.read(reference.load(folder, dtype, name), inputs)["residual", 2]
        assert reference.gap(flat, theirs) <= 1e-3
        assert reference.gap(flat, theirs * 1.01) > 1e-3
