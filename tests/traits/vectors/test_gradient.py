"""The gradient direction: what it is, and that the model's verdict rises along it."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.passes.readouts.responses import next_logprobs
from tracekit.storage.provenance import read
from traits import elicit, extract, gradient, load_contrast, pairs, project
from traits.contrast_sets.vetting import ANSWERS
from traits.vectors.self_report import asked, window

HONESTY = load_contrast("alignment/honesty")
COUNT = 6


@pytest.fixture(scope="module")
def traces(tiny_llama: Any) -> xr.DataArray:
    runs = elicit(tiny_llama, HONESTY, pairs=6)
    return tk.capture(tiny_llama, runs, tokens=slice(-4, -1), reduce="mean", progress=False)


@pytest.fixture(scope="module")
def vector(tiny_llama: Any, traces: xr.DataArray) -> xr.DataArray:
    return gradient(tiny_llama, HONESTY, traces, [1, 2], count=COUNT)


def test_it_is_a_unit_vector_oriented_by_the_pairs(
    vector: xr.DataArray, traces: xr.DataArray
) -> None:
    assert vector.dims == ("layer", "dim")
    assert vector.layer.values.tolist() == [1, 2]
    assert np.allclose(np.linalg.norm(vector, axis=1), 1, atol=1e-6)
    for layer in (1, 2):
        rows = pairs(traces.sel(layer=layer))
        up, down = (project(side, vector.sel(layer=layer)) for side in rows)
        assert float((up - down).mean()) > 0
    assert read(vector)["pairs"] == 6
    assert read(vector)["source"]["gradient"] == {"towards": "Yes", "against": "No"}


def test_it_is_no_difference_of_activations(vector: xr.DataArray, traces: xr.DataArray) -> None:
    cosine = (vector * extract(traces).sel(layer=[1, 2])).sum("dim")
    assert (np.abs(cosine) < 0.9).all()


def test_the_models_verdict_moves_along_it_more_than_along_others(
    tiny_llama: Any, traces: xr.DataArray, vector: xr.DataArray
) -> None:
    runs = tk.encode(tiny_llama, asked(HONESTY, set(traces["group"].values)))
    words = [tiny_llama.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ANSWERS]

    def moved(direction: xr.DataArray) -> float:
        def odds(size: float) -> float:
            edited = tk.steer(tiny_llama, direction, coefficient=size, tokens=window(runs, COUNT))
            chances = next_logprobs(edited, runs, words).values[0]
            return float((chances[:, 0] - chances[:, 1]).mean())

        return abs(odds(0.05) - odds(-0.05))

    along = vector.sel(layer=2)
    draws = np.random.default_rng(0).normal(size=(4, along.sizes["dim"]))
    others = [along.copy(data=row / np.linalg.norm(row)) for row in draws]
    assert moved(along) > 1.5 * max(moved(other) for other in others)


def test_the_traces_of_another_set_are_refused(tiny_llama: Any, traces: xr.DataArray) -> None:
    other = load_contrast("placebo/animal")
    with pytest.raises(ValueError, match=r"6 of 6 groups .*honesty/\d+'.*no stories of 'pl"):
        gradient(tiny_llama, other, traces, [1])
    renamed = [name.replace("honesty/0", "mine/0") for name in traces["group"].values.tolist()]
    with pytest.raises(ValueError, match=r"1 of 6 groups .*\(first: 'alignment/mine/0'"):
        gradient(tiny_llama, HONESTY, traces.assign_coords(group=("prompt", renamed)), [1])
