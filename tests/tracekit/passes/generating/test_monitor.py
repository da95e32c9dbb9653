"""A probe on what is being generated: each step's score, and the rows that it stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.oracles import probes
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}
Step = tuple[list[int], list[float], list[float]]


def median(row: np.ndarray) -> float:
    return float(np.median(row))


@pytest.fixture(scope="module")
def asked(tiny_llama: TransformersModel) -> xr.Dataset:
    return tk.encode(tiny_llama, steering.PROMPTS)


@pytest.fixture(scope="module")
def plain(tiny_llama: TransformersModel, asked: xr.Dataset) -> xr.Dataset:
    return tk.generate(tiny_llama, asked, max_new_tokens=NEW, **QUIET)


@pytest.fixture(scope="module")
def traces(tiny_llama: TransformersModel, plain: xr.Dataset) -> xr.DataArray:
    return tk.capture(tiny_llama, plain, **QUIET)


def by_hand(
    model: TransformersModel, asked: xr.Dataset, probe: xr.Dataset, over: float
) -> list[Any]:
    """Each row alone, by whole forwards of plain transformers: ids, scores, scores so far."""
    rows = []
    for row in asked.token_id.values:
        ids = torch.tensor(row[row >= 0])[None].long()
        begin, scores, so_far = ids.shape[1], [], []
        for step in range(NEW):
            with torch.no_grad():
                out = model._module(input_ids=ids, output_hidden_states=True, use_cache=False)
            seen = out.hidden_states[LAYER + 1][0, begin - 1 :].numpy()
            scores = probes.token_scores(probe, seen).tolist()
            so_far += [probes.pooled(probe, seen[1:])] if step else []
            token = out.logits[0, -1].argmax()
            if step and so_far[-1] > over:
                break
            ids = torch.cat([ids, token[None, None]], 1)
            if token == model.tokenizer.eos_token_id:
                break
        rows.append((ids[0, begin:].tolist(), scores, so_far))
    return rows


def told(runs: xr.Dataset) -> list[Step]:
    """As `by_hand` gives it, of monitored transcripts."""
    from_last = runs.sel(token=slice(-1, None))
    rows = []
    for n, ids in enumerate(steering.response_ids(runs)):
        scores, so_far = from_last.score.values[n], from_last.score_so_far.values[n]
        assert np.isnan(so_far[0])
        rows.append(
            (ids, scores[np.isfinite(scores)].tolist(), so_far[np.isfinite(so_far)].tolist())
        )
    return rows


def equal(found: list[Step], expected: list[Step]) -> bool:
    """Ids id for id, scores to 1e-4."""
    same = [a[0] == b[0] and len(a[1]) == len(b[1]) for a, b in zip(found, expected, strict=True)]
    return all(same) and all(
        np.allclose(x, y, atol=1e-4, rtol=1e-4)
        for a, b in zip(found, expected, strict=True)
        for x, y in zip(a[1:], b[1:], strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("linear", "mean"),
        ("linear", "rolling_max(width=3)"),
        ("linear", median),
        ("mlp", "max"),
        ("attention", "attention"),
    ],
)
def test_scores_and_stops_are_those_of_plain_forwards(
    kind: str,
    pooling: Any,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    traces: xr.DataArray,
) -> None:
    probe = probes.made(traces, kind, layer=LAYER, pooling=pooling)
    options: dict[str, Any] = {"max_new_tokens": NEW, "monitor": probe, **QUIET}
    watched = tk.generate(tiny_llama, asked, **options)
    assert watched.token_id.equals(plain.token_id)
    assert not watched.stopped.any()
    assert equal(told(watched), by_hand(tiny_llama, asked, probe, np.inf))
    assert not equal(told(watched), by_hand(tiny_llama, asked, probe.assign(offset=0.31), np.inf))

    best = watched.score_so_far.max("token").values
    over = float(np.sort(best)[1:3].mean())  # two of the four rows pass it
    stopped = tk.generate(tiny_llama, asked, stop=over, **options)
    assert stopped.stopped.values.tolist() == (best > over).tolist()
    assert equal(told(stopped), by_hand(tiny_llama, asked, probe, over))
    assert not equal(told(stopped), by_hand(tiny_llama, asked, probe, np.inf))
    own = {**options, "monitor": probe.assign(threshold=over), "stop": True, "token_budget": 1}
    alone = tk.generate(tiny_llama, asked, **own)
    assert alone.token_id.equals(stopped.token_id)
    assert tk.provenance(alone)["text"]["monitor"]["stop"] == over


def test_a_monitor_of_an_edited_model_says_what_a_capture_of_it_says(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset, traces: xr.DataArray
) -> None:
    vector = steering.unit_vectors(tiny_llama).sel(layer=LAYER)
    norm = steering.mean_norm(tiny_llama, plain, LAYER)
    steered = tk.steer(tiny_llama, vector, coefficient=8 * norm)
    probe = probes.made(traces, layer=LAYER)
    runs = tk.generate(steered, asked, max_new_tokens=NEW, monitor=probe, **QUIET)
    bare = tk.generate(steered, asked, max_new_tokens=NEW, **QUIET)
    assert runs.token_id.equals(bare.token_id)
    assert tk.provenance(runs)["text"]["by"] == tk.provenance(bare)["text"]["by"]
    there = np.isfinite(runs.score.sel(token=slice(-1, None)).values)
    for model, same in ((steered, True), (tiny_llama, False)):
        replayed = tk.capture(model, runs, probes=probe, **QUIET).sel(probe="probe").values
        apart = np.abs(runs.score.sel(token=slice(-1, None)).values - replayed)[there]
        assert (apart.max() < 1e-3) == same


def test_a_stopped_sample_is_the_beginning_of_the_one_that_was_not(
    tiny_llama: TransformersModel, asked: xr.Dataset, traces: xr.DataArray
) -> None:
    probe = probes.made(traces, layer=LAYER, pooling="max")
    drawn: dict[str, Any] = {"temperature": 1.0, "samples": 3, "seed": 5, "max_new_tokens": NEW}
    free = tk.generate(tiny_llama, asked, **drawn, **QUIET)
    watched = tk.generate(tiny_llama, asked, monitor=probe, **drawn, **QUIET)
    assert watched.token_id.equals(free.token_id)
    over = float(watched.score_so_far.max("token").median())
    stopped = tk.generate(tiny_llama, asked, monitor=probe, stop=over, **drawn, **QUIET)
    assert 0 < int(stopped.stopped.sum()) < stopped.sizes["prompt"]
    pairs = zip(steering.response_ids(stopped), steering.response_ids(free), strict=True)
    for n, (some, whole) in enumerate(pairs):
        assert some == whole[: len(some)]
        ends = float(stopped.score_so_far.isel(prompt=n).max())
        assert bool(stopped.stopped[n]) == (ends > over)
        assert stopped.stopped[n] or len(some) == len(whole)


def test_a_response_that_is_there_already_counts(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset, traces: xr.DataArray
) -> None:
    probe = probes.made(traces, layer=LAYER, pooling="max")
    first = tk.generate(tiny_llama, asked, max_new_tokens=4, **QUIET)
    on = tk.generate(tiny_llama, first, max_new_tokens=NEW - 4, monitor=probe, **QUIET)
    whole = tk.generate(tiny_llama, asked, max_new_tokens=NEW, monitor=probe, **QUIET)
    assert on.token_id.equals(whole.token_id)
    xr.testing.assert_allclose(on.score_so_far, whole.score_so_far, atol=1e-4)
    passed = float(whole.score_so_far.sel(token=1).min()) - 1e-3
    stopped = tk.generate(
        tiny_llama, first, max_new_tokens=NEW - 4, monitor=probe, stop=passed, **QUIET
    )
    assert stopped.stopped.all()
    assert steering.response_ids(stopped) == steering.response_ids(first)
    assert np.isfinite(stopped.score.sel(token=3)).all()


def test_a_probe_of_the_last_prompt_token_stops_before_the_first(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset, traces: xr.DataArray
) -> None:
    probe = probes.made(traces, layer=LAYER, pooling="last", tokens="-1:-1:None")
    options: dict[str, Any] = {"max_new_tokens": NEW, "monitor": probe, **QUIET}
    watched = tk.generate(tiny_llama, asked, **options)
    replayed = tk.capture(tiny_llama, plain, probes=probe, **QUIET)
    last = replayed.sel(token=-1, probe="probe")
    np.testing.assert_array_equal(replayed.pooled.sel(probe="probe"), last)
    for token in (-1, 0, NEW - 2):
        so_far = watched.score_so_far.sel(token=token)
        np.testing.assert_allclose(so_far[so_far.notnull()], last[so_far.notnull()], atol=1e-4)
    over = float(np.sort(last.values)[1:3].mean())
    stopped = tk.generate(tiny_llama, asked, stop=over, **options)
    assert stopped.stopped.values.tolist() == (last.values > over).tolist()
    for some, whole, ended in zip(
        steering.response_ids(stopped),
        steering.response_ids(plain),
        last.values > over,
        strict=True,
    ):
        assert some == ([] if ended else whole)
    mask = probe.assign_attrs(tokens="mask:0123456789abcdef")
    with pytest.raises(ValueError, match=r"pools tokens by a mask of the prompts that it was"):
        tk.generate(tiny_llama, asked, **{**options, "monitor": mask})


def test_monitors_that_cannot_be_are_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset, traces: xr.DataArray
) -> None:
    probe = probes.made(traces, layer=LAYER)

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            tk.generate(tiny_llama, asked, max_new_tokens=2, **options, **QUIET)

    refused(r"this one has NaN: none was set", monitor=probe, stop=True)
    refused(r"stop=nan was asked for; give a score", monitor=probe, stop=float("nan"))
    refused(r"stop=True .* without a monitor", stop=True)
    refused(r"probe has 16 dims and the residual stream", monitor=probe.isel(dim=slice(16)))
    refused(r"from a deeper model", monitor=probe.assign_coords(layer=9))
    made = tk.provenance(probe)
    other = {**made, "source": {**made["source"], "vocabulary": "other"}}
    refused(r"and the vocabulary other", monitor=tk.stamp(probe, other))
    refused(r"which traits\.fit did not make", monitor=probe.assign_attrs(kind="vector"))
