"""Ablation and clamping: what is left along the vector."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support.steering import LAYER
from tracekit.edits.directions import Amounts


def test_ablation_leaves_nothing_along_the_vector_at_any_layer_or_position(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    edited = tk.ablate(tiny_llama, vectors, tokens="all")
    assert _along(edited, plain, vectors).max() < 1e-5
    assert _along(tiny_llama, plain, vectors).max() > 1e-2
    late = _along(tk.ablate(tiny_llama, vectors, tokens=slice(3, 5)), plain, vectors)
    assert late.sel(token=slice(3, 5)).max() < 1e-5
    assert float(late.sel(token=2).max()) > 1e-2


def _along(model: TransformersModel, runs: xr.Dataset, vectors: xr.DataArray) -> xr.DataArray:
    traces = tk.capture(model, runs, tokens="all", progress=False)
    norms = np.sqrt((traces**2).sum("dim", skipna=False))
    return abs(xr.dot(traces, vectors, dim="dim")) / norms


def test_mean_ablation_sets_the_component_by_layer(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    mean = xr.DataArray([1.0, -2.0], dims="layer", coords={"layer": [1, 3]})
    edited = tk.ablate(tiny_llama, vectors.sel(layer=[1, 3]), mean=mean)
    found = xr.dot(tk.capture(edited, plain, [1, 3], progress=False), vectors, dim="dim")
    np.testing.assert_allclose(found.sel(layer=1).max(), 1.0, atol=1e-4)
    np.testing.assert_allclose(found.sel(layer=3).min(), -2.0, atol=1e-4)


def test_clamp_keeps_what_is_within_and_moves_what_is_not(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    vector = vectors.sel(layer=LAYER)
    free = xr.dot(tk.capture(tiny_llama, plain, [LAYER], progress=False), vector, dim="dim")
    low, high = float(free.quantile(0.3)), float(free.quantile(0.7))
    edited = tk.clamp(tiny_llama, vector, low=low, high=high)
    held = xr.dot(tk.capture(edited, plain, [LAYER], progress=False), vector, dim="dim")
    np.testing.assert_allclose(held, free.clip(low, high), atol=1e-4)
    assert float(abs(held - free).max()) > 0.1


def test_a_clamp_without_a_bound_and_amounts_without_names_are_refused(
    tiny_llama: TransformersModel, vectors: xr.DataArray
) -> None:
    one = vectors.sel(layer=LAYER)
    with pytest.raises(tk.InputError, match="without a bound"):
        tk.clamp(tiny_llama, one)
    made = inspect.unwrap(Amounts.__init__)
    with pytest.raises(tk.InputError, match="high was given 2 numbers without labels"):
        made(Amounts.__new__(Amounts), "high", [1.0, 2.0], [LAYER])
