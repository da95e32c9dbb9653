"""Projecting and reducing inside the trace against doing it afterwards; a batch in halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import QUIET, close
from tracekit.storage.provenance import read, stamp


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return forwards.encoded(tiny_llama)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_projecting_inside_the_trace_is_projecting_afterwards(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, where: str
) -> None:
    traces = tk.capture(tiny_llama, runs, [0, 2, 3], **QUIET)
    values = np.random.default_rng(0).standard_normal((3, 4, traces.sizes["dim"]))
    vectors = xr.DataArray(
        values.astype(np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x", "a/y", "b/x"], "layer": range(4)},
    )
    path = tmp_path / "p" if where == "disk" else None
    found = tk.capture(tiny_llama, runs, [0, 2, 3], vectors=vectors, path=path, **QUIET)
    assert found.dims == ("prompt", "token", "layer", "trait")
    found = found.sel(prompt=traces.prompt)
    chosen = vectors.sel(layer=[0, 2, 3])
    expected = xr.dot(traces, chosen, dim="dim").transpose(*found.dims)
    norm = np.sqrt((traces**2).sum("dim", skipna=False))
    size = float(np.nanmax(norm) * np.sqrt((chosen**2).sum("dim")).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * size)
    np.testing.assert_allclose(found.norm, norm, rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, expected.roll(trait=1), atol=1e-5 * size)


def test_one_vector_with_its_layer_is_a_bank_of_one(tiny_llama: Any, runs: xr.Dataset) -> None:
    drawn = np.random.default_rng(1).standard_normal(32).astype(np.float32)
    vector = xr.DataArray(drawn, dims="dim", coords={"layer": 2, "trait": "a/x"})
    found = tk.capture(tiny_llama, runs, vectors=vector, **QUIET)
    assert found.layer.values.tolist() == [2]
    assert found["trait"].values.tolist() == ["a/x"]
    bank = vector.expand_dims(["trait", "layer"])
    np.testing.assert_array_equal(found, tk.capture(tiny_llama, runs, vectors=bank, **QUIET))
    elsewhere = tk.capture(tiny_llama, runs, vectors=bank.assign_coords(layer=[1]), **QUIET)
    assert not np.allclose(found, elsewhere, equal_nan=True)
    with pytest.raises(ValueError, match="name a layer"):
        tk.capture(tiny_llama, runs, vectors=vector.drop_vars("layer"), **QUIET)


def test_vectors_of_other_weights_need_transfer(tiny_llama: Any, runs: xr.Dataset) -> None:
    made = read(tk.capture(tiny_llama, runs, [0], **QUIET))
    vectors = xr.DataArray(
        np.ones((1, 1, 32), np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x"], "layer": [0]},
    )
    own = tk.capture(tiny_llama, runs, vectors=stamp(vectors, {"source": made}), **QUIET)
    assert read(own)["vectors_from"] == {"source": made["weights"]}
    other = stamp(vectors, {"source": {**made, "weights": "feedfeedfeedfeed", "model": "base"}})
    with pytest.raises(ValueError, match=r"base \(float32, weights feedfeed.*transfer=True"):
        tk.capture(tiny_llama, runs, vectors=other, **QUIET)
    moved = tk.capture(tiny_llama, runs, vectors=other, transfer=True, **QUIET)
    assert read(moved)["vectors_from"]["transfer"] is True
    np.testing.assert_array_equal(moved, own)
    deep = stamp(vectors, {"source": {**made, "depth": 80}})
    with pytest.raises(ValueError, match="80 blocks"):
        tk.capture(tiny_llama, runs, vectors=deep, transfer=True, **QUIET)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_reducing_inside_the_trace_is_reducing_afterwards(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, where: str
) -> None:
    path = tmp_path if where == "disk" else None
    traces = tk.capture(tiny_llama, runs, tokens=slice(0, None), **QUIET)
    inside = {"tokens": slice(0, None), **QUIET}
    mean = tk.capture(tiny_llama, runs, reduce="mean", path=path and path / "m", **inside)
    most = tk.capture(
        tiny_llama, runs, reduce=lambda x: x.amax(0), path=path and path / "x", **inside
    )
    assert mean.dims == most.dims == ("prompt", "layer", "dim")
    assert {"group", "prompt_length"} <= set(mean.coords)
    close(mean.sel(prompt=traces.prompt), traces.mean("token"))
    close(most.sel(prompt=traces.prompt), traces.max("token"))
    with pytest.raises(AssertionError):
        close(most.sel(prompt=traces.prompt), traces.mean("token"))


def test_a_batch_that_does_not_fit_is_split_inside_a_trace(
    fresh_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    expected = tk.capture(fresh_llama, runs, [1, 3], **QUIET)
    mlp = fresh_llama._module.model.layers[2].mlp
    inner, sizes = mlp.forward, []

    def full(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return inner(x)

    mlp.forward = full
    found = tk.capture(fresh_llama, runs, [1, 3], path=tmp_path / "x", **QUIET)
    assert max(sizes) > 2
    close(found.sel(prompt=expected.prompt), expected)
