"""Steering: how far it moves the projection, with vectors of every form; what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support.steering import LAYER


def test_steering_raises_the_projection_by_the_coefficient(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    vector = vectors.sel(layer=LAYER)
    edited = tk.steer(tiny_llama, vector, coefficient=3.5)
    before, after = (
        xr.dot(tk.capture(m, plain, [LAYER], progress=False), vector, dim="dim")
        for m in (tiny_llama, edited)
    )
    rise = (after - before).values
    np.testing.assert_allclose(rise[np.isfinite(rise)], 3.5, atol=1e-4)
    doubled = tk.capture(
        tk.steer(tiny_llama, 2 * vector, coefficient=3.5), plain, [LAYER], progress=False
    )
    rise = (xr.dot(doubled, vector, dim="dim") - before).values
    np.testing.assert_allclose(rise[np.isfinite(rise)], 7.0, atol=1e-4)


def test_a_float64_model_is_edited_in_float64(tiny_folder: Path, tiny_llama: Any) -> None:
    model = tk.load(tiny_folder, dtype="float64", tokenizer=tiny_llama.tokenizer)
    vector = np.linspace(-1, 1, 32)

    def after(edited: TransformersModel) -> torch.Tensor:
        with torch.no_grad(), edited.trace("The quick brown fox"):
            value = edited.layers[1].output.save()
        return value

    given: dict[str, Any] = {"layers": 1, "tokens": "all"}
    expected = after(model)
    assert expected.dtype == torch.float64
    still = [
        tk.steer(model, vector, coefficient=0.0, **given),
        tk.clamp(model, vector, low=-1e6, **given),
        tk.steer(model, vector, coefficient=9.0, when=tk.when(vector, layer=0, above=1e6), **given),
    ]
    for edited in still:
        assert torch.equal(after(edited), expected)
    moved = after(tk.steer(model, vector, coefficient=0.5, **given)) - expected
    np.testing.assert_allclose(moved[0, 0], 0.5 * vector.astype(np.float32), atol=1e-12)
    unit = vector / np.linalg.norm(vector)
    left = after(tk.ablate(model, vector, **given)).numpy() @ unit
    np.testing.assert_allclose(left, 0, atol=1e-6)


BAD = {
    "dim": (lambda v: v.isel(dim=slice(8)).sel(layer=1), {}, r"8 dims .* has 32"),
    "depth": (
        lambda v: v.isel(layer=[0]).assign_coords(layer=[40]),
        {},
        r"layers \[40\] .* 0 to 3",
    ),
    "no such layer": (lambda v: v.sel(layer=[0, 1]), {"layers": [1, 2]}, r"\[2\] .* \[0, 1\]"),
    "no such block": (lambda v: v.sel(layer=1), {"layers": [4]}, r"\[4\] .* blocks 0 to 3"),
    "twice": (lambda v: v.sel(layer=1), {"layers": [2, 2]}, r"\[2, 2\]"),
    "no layer": (lambda v: v.sel(layer=1, drop=True), {}, r"layers="),
    "zero": (lambda v: v.sel(layer=1) * 0, {}, r"layer 1 has the norm 0"),
    "nan": (lambda v: v.sel(layer=1) * np.nan, {}, r"layer 1 has the norm nan"),
    "trait left": (
        lambda v: v.sel(layer=1).expand_dims(trait=["alignment/honesty"]),
        {},
        r"sel\(\{'trait': 'alignment/honesty'\}\)",
    ),
    "infinite": (lambda v: v.sel(layer=1), {"coefficient": np.inf}, r"coefficient=inf"),
    "tokens": (lambda v: v.sel(layer=1), {"tokens": "last"}, r"tokens='last'"),
    "backwards": (lambda v: v.sel(layer=1), {"tokens": slice(4, 2)}, r"slice\(4, 2"),
    "step": (lambda v: v.sel(layer=1), {"tokens": slice(None, 4, 2)}, r"a step counts up"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_numbers(
    name: str, tiny_llama: TransformersModel, vectors: xr.DataArray
) -> None:
    spoil, given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        tk.steer(tiny_llama, spoil(vectors), **{"coefficient": 1.0, **given})


def test_plain_arrays_and_tensors_act_at_the_layers_given(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    def moved(vector: object, layers: object) -> np.ndarray:
        edited = tk.steer(tiny_llama, vector, coefficient=3.0, layers=layers)
        return tk.capture(edited, plain, [0, LAYER], progress=False).values

    one, two = vectors.sel(layer=LAYER), vectors.sel(layer=[0, LAYER])
    expected = moved(one, None)
    for vector in (one.values, torch.tensor(one.values, requires_grad=True)):
        np.testing.assert_array_equal(moved(vector, LAYER), expected)
        np.testing.assert_array_equal(moved(vector, [LAYER]), expected)
    np.testing.assert_array_equal(moved(two.values, [0, LAYER]), moved(two, None))
    assert np.nanmax(abs(moved(two.values[::-1].copy(), [0, LAYER]) - moved(two, None))) > 0.1
    steer = inspect.unwrap(tk.steer)
    with pytest.raises(tk.InputError, match=r"the name 'joy'; .* tk\.open"):
        steer(tiny_llama, "joy", coefficient=1.0, layers=1)
    for vector, layers in ((one.values, None), (two.values, [1]), ([1.0, 2.0], 1), (None, 1)):
        with pytest.raises(TypeError, match="an edit needs a DataArray"):
            steer(tiny_llama, vector, coefficient=1.0, layers=layers)


@pytest.mark.parametrize("size", [1e38, 1e30])
def test_values_that_become_infinite_are_refused(
    size: float, tiny_llama: TransformersModel, asked: xr.Dataset, vectors: xr.DataArray
) -> None:
    edited = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=size)
    message = r"steer \(edit 0, coefficient 1e\+3\d\) at layer 1 .* [1-4] rows, such as 'text/1'"
    for run in (
        lambda: tk.generate(edited, asked, max_new_tokens=3, progress=False),
        lambda: tk.generate(edited, asked, max_new_tokens=3, temperature=1.0, progress=False),
        lambda: tk.capture(edited, asked, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    large = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1e10)
    tk.generate(large, asked, max_new_tokens=3, progress=False)
