"""Stories through a tiny model: ids, windows, and continuations."""

import inspect

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage.provenance import read
from traits import elicit, load_contrast, pairs, window_traces

WINDOWS = {"end": slice(-4, -1), "last": slice(-1, -1)}


def test_each_window_is_the_mean_of_the_tokens_it_names(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy"), pairs=40)
    traces = window_traces(tiny_llama, runs, WINDOWS)
    assert traces.dims == ("prompt", "window", "layer", "dim")
    assert traces.sizes["prompt"] == 80  # more than are captured at once
    assert read(traces)["ids"] == read(runs)["ids"]
    whole = tk.capture(tiny_llama, runs, tokens=slice(-4, -1))
    for name, cut in WINDOWS.items():
        wanted = whole.sel(token=cut).mean("token")
        found = traces.sel(window=name)
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-4, atol=1e-5)
    gap = abs(traces.sel(window="end") - traces.sel(window="last").values).max()
    assert float(gap) > 0.01
    assert pairs(traces)[0].sizes["pair"] == 40


def test_a_continuation_is_the_models_own_after_the_very_ids_of_the_story(tiny_llama) -> None:
    story = elicit(tiny_llama, load_contrast("sycophancy"), pairs=2)
    runs = elicit(tiny_llama, load_contrast("sycophancy"), pairs=2, continuation=3)
    before = runs["token_id"].sel(token=slice(None, -1))
    xr.testing.assert_equal(before.drop_attrs(), story["token_id"].drop_attrs())
    assert int(runs["token"].max()) == 2
    traces = window_traces(tiny_llama, runs, {"said": slice(0, 2)})
    wanted = tk.capture(tiny_llama, runs, tokens=slice(0, 2), reduce="mean")
    np.testing.assert_allclose(traces.isel(window=0).values, wanted.values, rtol=1e-4, atol=1e-5)


def test_the_stories_end_as_they_are_written(tiny_llama) -> None:
    contrast = load_contrast("sycophancy")
    runs = elicit(tiny_llama, contrast, pairs=3)
    for side, lines in (("positive", contrast.positive), ("negative", contrast.negative)):
        for n in range(3):
            ids = runs["token_id"].sel(prompt=f"{contrast.name}/{side}/{n}").values
            assert tiny_llama.tokenizer.decode(ids[ids >= 0]) == lines[n]


def test_a_window_without_any_token_is_refused(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy"), pairs=2)
    with pytest.raises(ValueError, match="token"):
        window_traces(tiny_llama, runs, {"said": slice(0, 2)})


def test_a_name_in_the_place_of_a_set_is_refused_with_what_to_give(tiny_llama):
    with pytest.raises(TypeError, match=r"given 'sycophancy', and takes a contrast set"):
        inspect.unwrap(elicit)(tiny_llama, "sycophancy")
