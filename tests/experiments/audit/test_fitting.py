"""Chat pairs of one writer join the fit of a trait's vector, and nothing else of its evaluation."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.evidence.trait_vectors import fitted_traces
from experiments.audit.run import Run
from experiments.audit.vectors.evaluation import judged, split
from experiments.audit.vectors.fitting import with_chats
from experiments.audit.vectors.written import CHATS, STORIES, TOLD, Pairs, parts_of
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.oracles.planted import contrast_traces
from traits import METHODS, pairs, select_part
from traits.vectors.selection import Sides

TRAIT, COUNT = "alignment/planted", 20


@pytest.fixture(scope="module")
def stories() -> xr.DataArray:
    traces = contrast_traces(np.random.default_rng(0), pairs=126, effect=1.0, dim=12)
    return traces.expand_dims(window=["-3:1"]).transpose("prompt", "window", "layer", "dim")


@pytest.fixture(scope="module")
def written() -> xr.DataArray:
    """Thirty pairs of each of two writers, the trait along another dim than in the stories."""
    draw = np.random.default_rng(1)
    values = draw.normal(size=(2, 60, 3, 12)).astype(np.float32)
    values[0, ..., 5] += 2.0
    names = [f"{TRAIT}/{writer}{n}" for writer in "ab" for n in range(30)]
    rows = {
        "group": ("prompt", names * 2),
        "label": ("prompt", np.repeat([1, 0], 60)),
        "writer": ("prompt", np.tile(np.repeat(["a", "b"], 30), 2)),
        "layer": [0, 1, 2],
    }
    return xr.DataArray(values.reshape(-1, 3, 12), dims=("prompt", "layer", "dim"), coords=rows)


def settings(**more):
    few = {"draws": 19, "repetitions": 20, "methods": ("mean_diff",)}
    return read_preset("tiny", {**few, **more})


def wanted(stories, written, part) -> np.ndarray:
    """Half of it the stories' mean difference, half that of the first twenty pairs of writer a."""
    positive, negative = pairs(select_part(stories, part, "fit"))
    told = (positive - negative).values[:, 0].mean(0, dtype=np.float64)
    first = written.values[:COUNT] - written.values[60 : 60 + COUNT]
    vector = told + first.mean(0, dtype=np.float64)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def test_the_vector_is_half_of_stories_and_half_of_chats(stories, written):
    given = settings(chat_pairs=COUNT)
    vectors, found = judged(stories, given, written=written)
    part, _ = split(stories, given)
    here = vectors.sel(extraction="mean_diff")
    np.testing.assert_allclose(here, wanted(stories, written, part), atol=1e-5)
    alone, before = judged(stories, settings())
    assert np.abs(alone.sel(extraction="mean_diff") - here).max() > 0.05
    # the stories that choose and report stay; those that fit have company
    assert found["pairs"].values.tolist() == [83, *before["pairs"].values[1:].tolist()]


def test_only_the_first_writers_first_pairs_are_heard(stories, written):
    given = settings(chat_pairs=COUNT)
    part, _ = split(stories, given)
    fit = [
        select_part(*with_chats(stories, part, chats, COUNT), "fit").values
        for chats in (written, written.where(written["writer"] == "a", 9.0), written + 1.0)
    ]
    np.testing.assert_array_equal(fit[0], fit[1])
    assert not np.array_equal(fit[0], fit[2])


def told(pairs: int, at: int, seed: int) -> Sides:
    """Pairs that differ by one along one dim, at one window and layer."""
    lacks = np.random.default_rng(seed).normal(size=(pairs, 1, 1, 12))
    return lacks + np.eye(12)[at], lacks


def test_constructions_weigh_alike_however_many_pairs_they_have():
    ways = {"stories": (9, 0), "act": (4, 1), "dialogue": (2, 2)}
    parts = {
        way: {"fit": told(count, at, 1), "select": told(3, at, 2), "report": told(2, at, 3)}
        for way, (count, at) in ways.items()
    }
    stories, further = parts.pop("stories"), parts
    given = Pairs(stories, {"a": told(30, 5, 4), "b": told(30, 6, 5)}, further)

    def direction(source: str) -> np.ndarray:
        part = parts_of(given, source, judge=1)
        vector = METHODS["mean_diff"](*(side[:, 0] for side in part.fit))[0]
        return (vector / np.linalg.norm(vector)).round(6)

    def along(**dims: float) -> np.ndarray:
        vector = np.zeros(12)
        vector[[int(dim[1:]) for dim in dims]] = list(dims.values())
        return (vector / np.linalg.norm(vector)).round(6)

    assert direction(STORIES).tolist() == along(d0=1).tolist()
    assert direction(TOLD).tolist() == along(d0=1, d1=1, d2=1).tolist()
    both = along(d0=1, d1=1, d2=1, d5=3)
    assert direction(f"{TOLD} + {CHATS}").tolist() == both.tolist()
    # the other writer judges, and the pairs that choose are as they were written
    chosen = parts_of(given, TOLD, judge=1)
    np.testing.assert_array_equal(chosen.report[0], given.chats["b"][0])
    wanted = [stories["select"][0], *(way["select"][0] for way in further.values())]
    np.testing.assert_array_equal(chosen.select[0], np.concatenate(wanted))
    assert direction(TOLD).tolist() != direction(CHATS).tolist()


def test_what_a_vector_was_fitted_on_is_known_to_the_audits_nulls(stories, written, tmp_path):

    class Audit:
        folder, settings = tmp_path, settings(chat_pairs=COUNT)
        evaluation = xr.Dataset({"window_selected": ("trait", ["-3:1"])}, {"trait": [TRAIT]})

    tk.save(tk.stamp(stories, {"made_by": "tests"}), Run(tmp_path).story(TRAIT))
    tk.save(tk.stamp(written, {"made_by": "tests"}), Run(tmp_path).written(TRAIT))
    positive, negative = pairs(fitted_traces(Audit(), TRAIT))
    vector = (positive - negative).values.mean(0, dtype=np.float64)
    vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
    part, _ = split(stories, Audit.settings)
    np.testing.assert_allclose(vector, wanted(stories, written, part), atol=1e-5)


def test_more_pairs_than_are_fitted_on_are_refused():
    with pytest.raises(ValueError, match="chat_pairs=21 was given"):
        settings(chat_pairs=21)
