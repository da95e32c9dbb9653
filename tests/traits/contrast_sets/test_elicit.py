"""Stories through a tiny model: ids, windows, and continuations."""

import inspect

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tracekit.storage.provenance import read
from tracekit.transcripts.encode import row_hashes
from tracekit.transcripts.tensors import prompt_hashes
from traits import elicit, load_contrast, pairs, window_traces
from traits.contrast_sets.common_beginnings import as_prompts

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


def _means(model, runs, windows):
    """Means of each row by transformers itself, alone and whole; all blocks but the last."""
    ids = runs.token_id.transpose("prompt", "token").values
    found = np.empty((len(ids), len(windows), len(model.layers) - 1, 32), np.float32)
    for n, row in enumerate(ids):
        real = row >= 0
        given = torch.as_tensor(row[real].astype(np.int64))[None]
        with torch.no_grad():
            states = model._module(given, output_hidden_states=True).hidden_states[1:-1]
        labels = runs.token.values[real]
        for w, cut in enumerate(windows.values()):
            there = torch.as_tensor((labels >= cut.start) & (labels <= cut.stop))
            found[n, w] = torch.cat(states)[:, there].mean(1)
    return found


@pytest.mark.parametrize("continuation", [0, 3])
def test_what_twins_begin_with_is_read_once(tiny_llama, continuation) -> None:
    contrast = load_contrast("sycophancy", "act")
    runs = elicit(tiny_llama, contrast, pairs=12, continuation=continuation)
    windows = {"end": slice(-4, continuation - 1), "last": slice(-1, -1)}
    window_traces(tiny_llama, runs, windows)  # a model is proved to share once
    given = []
    count = lambda _, __, named: given.append(named["input_ids"].numel())
    handle = tiny_llama._module.register_forward_pre_hook(count, with_kwargs=True)
    traces = window_traces(tiny_llama, runs, windows)
    handle.remove()
    assert sum(given) < 0.85 * int((runs.token_id >= 0).sum())
    assert read(traces)["batches"]["prompts"] == "once"
    xr.testing.assert_equal(traces["prompt_length"], runs["prompt_length"])
    wanted = _means(tiny_llama, runs, windows)
    np.testing.assert_allclose(traces.isel(layer=slice(-1)), wanted, rtol=1e-4, atol=1e-5)


def test_a_window_from_the_first_token_on_reads_whole_rows(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy", "act"), pairs=2)
    windows = {"all": slice(-400, -1)}
    traces = window_traces(tiny_llama, runs, windows)
    assert "prompts" not in read(traces)["batches"]
    wanted = _means(tiny_llama, runs, windows)
    np.testing.assert_allclose(traces.isel(layer=slice(-1)), wanted, rtol=1e-4, atol=1e-5)


def test_an_edit_of_the_stories_end_acts_where_it_did(tiny_llama) -> None:
    """Edits count tokens from where a prompt ends: as twins are read, that is elsewhere."""
    runs = elicit(tiny_llama, load_contrast("sycophancy", "act"), pairs=6, continuation=2)
    direction = xr.DataArray(np.eye(32, dtype=np.float32)[0], dims="dim")
    steered = tk.steer(tiny_llama, direction, layers=1, coefficient=50.0, tokens=slice(0, None))
    windows = {"end": slice(-2, -1), "said": slice(0, 1)}
    traces = window_traces(steered, runs, windows).sel(layer=1, dim=0)
    plain = window_traces(tiny_llama, runs, windows).sel(layer=1, dim=0)
    gap = (traces - plain.values).mean("prompt").values
    np.testing.assert_allclose(gap, [0, 50], atol=1e-3)


def test_a_row_that_lacks_one_window_has_none_there(tiny_llama) -> None:
    runs = tk.encode(tiny_llama, ["One two three four five six", "One two"], template="raw")
    traces = window_traces(tiny_llama, runs, {"last": slice(-1, -1), "fourth": slice(-4, -4)})
    there = np.isfinite(traces).all(("layer", "dim"))
    np.testing.assert_array_equal(there, [[True, True], [True, False]])


def test_twins_that_differ_inside_the_window_alone_share_all_before_it(tiny_llama) -> None:
    ends = ["once more", "one last time and then never again"]
    prompts = [
        tk.Prompt(
            f"{side}/{n}", text=f"The guard opens gate {n} and looks at it {end}", group=f"{n}"
        )
        for n in range(6)
        for side, end in enumerate(ends)
    ]
    runs = tk.encode(tiny_llama, prompts, template="raw")
    kept = np.asarray(runs.token_id.transpose("prompt", "token") >= 0)
    kept &= runs.token.values >= -4
    again, there = as_prompts(runs, kept[:, None])
    hashes = prompt_hashes(again)
    assert len(set(hashes)) == 6
    assert hashes[::2] == hashes[1::2]
    ids = again.token_id.values
    np.testing.assert_array_equal(ids[there[:, 0]], runs.token_id.values[kept])
    assert row_hashes(again) == row_hashes(runs)


def test_rows_without_a_token_in_any_window_are_refused_by_name(tiny_llama) -> None:
    texts = ["One two three four five six seven eight nine ten", "One two three"]
    runs = tk.encode(tiny_llama, texts, template="raw")
    windows = {"far": slice(-8, -7), "said": slice(0, 0)}
    with pytest.raises(ValueError, match=r"1 rows, such as 'text/1', .*far \(-8 to -7\)"):
        window_traces(tiny_llama, runs, windows)


def test_what_is_read_behind_other_beginnings_is_not_compared(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy", "act"), pairs=12)
    last, end = {"last": slice(-1, -1)}, {"end": slice(-40, -1)}
    one = window_traces(tiny_llama, runs, last).isel(window=0, drop=True)
    both = window_traces(tiny_llama, runs, {**last, **end}).sel(window="last", drop=True)
    with pytest.raises(ValueError, match="batches"):
        tk.difference(one, both)
    whole = [
        window_traces(tiny_llama, runs, windows, share_prompts=False).sel(window="last", drop=True)
        for windows in (last, {**last, **end})
    ]
    assert float(abs(tk.difference(*whole)).max()) == 0


def test_an_edited_model_is_compared_with_whole_rows_of_the_plain_one(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy", "act"), pairs=12)
    direction = xr.DataArray(np.eye(32, dtype=np.float32)[0], dims="dim")
    steered = tk.steer(tiny_llama, direction, layers=1, coefficient=9.0, tokens="all")
    window = {"last": slice(-1, -1)}
    edited = window_traces(steered, runs, window)
    with pytest.raises(ValueError, match="batches"):
        tk.difference(edited, window_traces(tiny_llama, runs, window))
    gap = tk.difference(edited, window_traces(tiny_llama, runs, window, share_prompts=False))
    np.testing.assert_allclose(gap.sel(layer=1, dim=0), 9, atol=1e-3)


def test_stories_that_were_cut_and_rows_of_no_group_are_read(tiny_llama) -> None:
    runs = elicit(tiny_llama, load_contrast("sycophancy", "act"), pairs=4)
    cut = runs.isel(token=slice(-6, None)).drop_vars("group")
    cut = cut.assign_coords(stretch=("prompt", [f"{n}" for n in range(8)]))
    for windows in ({"end": slice(-6, -1)}, {"last": slice(-1, -1)}):
        traces = window_traces(tiny_llama, cut, windows)
        assert "group" not in traces.coords
        assert traces["stretch"].values.tolist() == cut["stretch"].values.tolist()
        wanted = _means(tiny_llama, cut, windows)
        np.testing.assert_allclose(traces.isel(layer=slice(-1)), wanted, rtol=1e-4, atol=1e-5)


def test_a_value_that_is_not_finite_is_said_of_its_own_token(fresh_llama) -> None:
    runs = elicit(fresh_llama, load_contrast("sycophancy", "act"), pairs=12)
    wrong = int(runs.token_id.isel(prompt=0).sel(token=-2))
    fresh_llama._module.get_input_embeddings().weight.data[wrong] = np.nan
    with pytest.raises(ValueError, match=r"not finite .* token -\d+, layer"):
        window_traces(fresh_llama, runs, {"end": slice(-4, -1)})
