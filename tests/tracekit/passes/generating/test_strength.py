"""Strength in residual norms and in nats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tracekit.passes.generating.strength import calibrate, divergence, residual_norm, sweep

RESPONSES = ["In France.", "Once upon a time, far out.", "Hello!", "White, gold and pink."]


@pytest.fixture(scope="module")
def neutral(tiny_llama: TransformersModel) -> xr.Dataset:
    return tk.encode(tiny_llama, steering.PROMPTS, RESPONSES)


@pytest.fixture(scope="module")
def vector(tiny_llama: TransformersModel) -> xr.DataArray:
    return steering.unit_vectors(tiny_llama).sel(layer=1)


def test_residual_norm_is_the_mean_over_rows_of_their_tokens(
    tiny_llama: TransformersModel, neutral: xr.Dataset
) -> None:
    traces = tk.capture(tiny_llama, neutral, progress=False)
    expected = np.sqrt((traces**2).sum("dim", skipna=False)).mean("token").mean("prompt")
    found = residual_norm(tiny_llama, neutral)
    assert found.dims == ("layer",)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, found.roll(layer=1), rtol=1e-2)


def test_steering_in_multiples_of_the_norm(
    tiny_llama: TransformersModel, neutral: xr.Dataset
) -> None:
    vectors = steering.unit_vectors(tiny_llama)
    norms = residual_norm(tiny_llama, neutral, [0])
    edited = tk.steer(tiny_llama, vectors.sel(layer=[0]), coefficient=0.5 * norms)
    change = tk.capture(edited, neutral, [0], progress=False) - tk.capture(
        tiny_llama, neutral, [0], progress=False
    )
    size = np.sqrt((change**2).sum("dim", skipna=False)).sel(token=0)
    np.testing.assert_allclose(size, 0.5 * float(norms[0]), rtol=1e-4)


def test_divergence_against_transformers_logits(
    tiny_llama: TransformersModel, neutral: xr.Dataset, vector: xr.DataArray
) -> None:
    edited = tk.steer(tiny_llama, vector, coefficient=3.0)
    found = divergence(tiny_llama, edited, neutral)
    for row in range(2):
        ids = neutral.token_id.values[row]
        real = torch.tensor(ids[ids >= 0]).long()[None]
        start = int(neutral.prompt_length[row])
        block = tiny_llama._module.model.layers[1]

        def add(_: object, __: object, out: torch.Tensor, start: int = start) -> torch.Tensor:
            out = out.clone()
            out[:, start - 1 :] += 3.0 * torch.tensor(vector.values)
            return out

        with torch.no_grad():
            p = tiny_llama._module(real).logits[0, start - 1 : -1].log_softmax(-1)
            handle = block.register_forward_hook(add)
            q = tiny_llama._module(real).logits[0, start - 1 : -1].log_softmax(-1)
            handle.remove()
        expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        here = found.isel(prompt=row).dropna("token")
        assert here.token.values.tolist() == list(range(len(expected)))
        np.testing.assert_allclose(here, expected.numpy(), rtol=1e-3, atol=1e-6)
        assert not np.allclose(here, expected.numpy()[::-1], rtol=1e-3)
    assert float(abs(divergence(tiny_llama, tiny_llama, neutral)).max()) < 1e-6


def test_divergence_says_what_made_it_and_is_saved_viewed_and_listed(
    tiny_llama: TransformersModel, neutral: xr.Dataset, vector: xr.DataArray, tmp_path: Path
) -> None:
    edited = tk.steer(tiny_llama, vector, coefficient=3.0)
    found = divergence(tiny_llama, edited, neutral)
    made = tk.provenance(found)
    assert (made["edits"], made["edited"]["edits"][0]["kind"]) == ([], "steer")
    assert made["weights"] == made["edited"]["weights"]
    assert tk.open(tk.save(found, tmp_path / "d.nc")).identical(found)
    best = tk.highest(found, 1)
    at = found.sel(prompt=best.prompt.values[0], token=best.token.values[0])
    assert f"[{at.token_text.item()}]" in best.text.values[0]
    assert at.token_text.item()
    assert tk.view(found)._repr_html_()


def test_norms_of_two_weights_are_subtracted(
    tiny_llama: TransformersModel, neutral: xr.Dataset, tiny_lora: Path
) -> None:
    bare = residual_norm(tiny_llama, neutral, [1, 2])
    with tk.adapter(tiny_llama, tiny_lora):
        adapted = residual_norm(tiny_llama, neutral, [1, 2])
    shift = tk.difference(adapted, bare)
    np.testing.assert_array_equal(shift, adapted.values - bare.values)
    assert float(abs(shift).min()) > 0


def test_calibration_meets_the_budget_and_grows_with_it(
    tiny_llama: TransformersModel, neutral: xr.Dataset, vector: xr.DataArray
) -> None:
    def push(coefficient: float) -> TransformersModel:
        return tk.steer(tiny_llama, vector, coefficient=-coefficient)

    found = [calibrate(tiny_llama, push, neutral, budget=budget) for budget in (0.001, 0.01)]
    costs = [float(divergence(tiny_llama, push(c), neutral).mean()) for c in found]
    np.testing.assert_allclose(costs, [0.001, 0.01], rtol=0.051)
    assert found[0] < found[1]
    far = calibrate(tiny_llama, push, neutral, budget=0.001, start=1e4)
    assert far == pytest.approx(found[0], rel=0.1)


def test_budgets_that_cannot_be_met_are_refused(
    tiny_llama: TransformersModel, neutral: xr.Dataset, vector: xr.DataArray
) -> None:
    def nothing(_: float) -> TransformersModel:
        return tiny_llama

    with pytest.raises(ValueError, match=r"0.1 nats a token within 16 tries .* 1: "):
        calibrate(tiny_llama, nothing, neutral.isel(prompt=[0]), budget=0.1)
    with pytest.raises(ValueError, match=r"budget=-1\.0"):
        calibrate(tiny_llama, nothing, neutral, budget=-1.0)
    with pytest.raises(ValueError, match="no response tokens"):
        divergence(tiny_llama, tiny_llama, tk.encode(tiny_llama, ["Hi"]))


def test_a_sweep_names_each_value_once(neutral: xr.Dataset) -> None:
    rows = sweep(neutral, [0.0, 2.0])
    assert rows.prompt.values.tolist()[::4] == ["text/0@0", "text/0@1"]
    assert rows.coefficient.values.tolist() == [0.0] * 4 + [2.0] * 4
    for values in ([], [1.0, 1.0]):
        with pytest.raises(ValueError, match="each value once"):
            sweep(neutral, values)
