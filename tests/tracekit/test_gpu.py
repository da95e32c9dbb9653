"""On a CUDA device: what the CPU gives, on the way to memory, to disk, and through every edit."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import tracekit as tk
from tests.support import forwards, steering
from tests.support.forwards import QUIET
from tests.support.models import tiny
from tests.support.oracles import reference
from tests.support.steering import LAYER
from tracekit.model.weights import weights_fingerprint
from tracekit.passes import batching
from tracekit.storage.provenance import read

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs where a CUDA device is"),
]
CPU = {"device_map": "cpu"}


@pytest.fixture(scope="module")
def folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for blocks of 4 bits."""
    return tiny.build("Llama", tmp_path_factory.mktemp("models") / "wide", words, widen=4)


@pytest.fixture(scope="module")
def lora(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_lora(folder, tmp_path_factory.mktemp("adapters") / "wide")


@pytest.fixture(scope="module")
def gpu(folder: Path, words: Any) -> Any:
    return tk.load(folder, dtype="float32", tokenizer=words)


@pytest.fixture(scope="module")
def cpu(folder: Path, words: Any) -> Any:
    return tk.load(folder, dtype="float32", tokenizer=words, **CPU)


@pytest.fixture(scope="module")
def runs(cpu: Any) -> xr.Dataset:
    return forwards.encoded(cpu)


@pytest.fixture(scope="module")
def expected(cpu: Any, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(cpu, runs, **QUIET)


def gap(found: Any, theirs: Any) -> float:
    """The largest difference of a token's values, over the token's norm."""
    found, theirs = np.asarray(found), np.asarray(theirs)
    assert np.array_equal(np.isnan(found), np.isnan(theirs))
    norms = np.linalg.norm(theirs, axis=-1)
    return float(np.nanmax(np.linalg.norm(found - theirs, axis=-1) / norms))


def unlike(values: Any) -> np.ndarray:
    """The same values, but for one."""
    spoilt = np.array(values)
    place = tuple(np.argwhere(np.isfinite(spoilt))[7])
    spoilt[place] += 10
    return spoilt


def in_16_bits(lora: Path, folder: Path) -> Path:
    """As the reference holds it beside 4 bits; what is stored in float32 is held so here."""
    shutil.copytree(lora, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    halves = {name: value.bfloat16() for name, value in weights.items()}
    save_file(halves, folder / "adapter_model.safetensors")
    return folder


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
    dtype: str, writers: int | None, folder: Path, words: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
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
    here, there = (tk.gradients(m, runs, " Yes", " No") for m in (gpu, cpu))
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
