"""A response's score by another pooling than the mean, and directions that are pooled alike."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from experiments.audit.evidence.audit import Audit, read_audit
from experiments.audit.evidence.directions_null import (
    TokenResiduals,
    matched,
    projections,
    themselves,
)
from experiments.audit.evidence.gather import gathered
from experiments.audit.evidence.measures import means_of
from experiments.audit.phases.projections import read
from experiments.audit.sections.detecting import detection, nulls, units
from experiments.audit.settings.groups import Settings
from tests.support.oracles.planted_run import build
from tracekit.transcripts.pooling import Pooling

DIMS = ("prompt", "token", "layer", "dim")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooled") / "run"
    return folder, build(folder, effect=2.0)


def by(settings: Settings, pooling: str) -> Settings:
    changed = dataclasses.replace(settings.hypothesis, pooling=pooling)
    return dataclasses.replace(settings, hypothesis=changed)


@pytest.fixture(scope="module")
def pooled(planted) -> Audit:
    """The audit of that run by the largest score of a response's tokens."""
    return read_audit(planted[0], by(planted[1], "max"))


def test_directions_are_read_off_tokens_as_a_loop_would_read_them():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(5, 7, 2, 6))
    values[1, 4:], values[3, 0] = np.nan, np.nan
    traces = xr.DataArray(values, {"layer": [3, 4]}, DIMS)
    tokens = TokenResiduals(traces, [2, 3, 4], Pooling("top_k", k=2))
    directions = matched(draw.normal(size=(9, 3, 6)), 2, draw, 4)
    found = directions.projected(tokens)
    assert np.isnan(found[:, :, 0]).all()  # a layer that is not kept
    expected = np.empty((4, 5, 2, 2))
    for number, row, layer, trait in np.ndindex(expected.shape):
        vector = directions.weights[number, trait] @ directions.samples[:, layer + 1]
        residuals = values[row, :, layer]
        residuals = residuals[np.isfinite(residuals).all(1)]
        cosines = residuals @ vector / np.linalg.norm(residuals, axis=1) / np.linalg.norm(vector)
        expected[number, row, layer, trait] = np.sort(cosines)[-2:].mean()
    np.testing.assert_allclose(found[:, :, 1:], expected, atol=1e-12)
    mean = TokenResiduals(traces, [2, 3, 4], Pooling("mean"))
    assert not np.allclose(directions.projected(mean)[:, :, 1:], expected, atol=1e-3)
    some = tokens[np.array([True, False, False, True, False])]
    np.testing.assert_array_equal(directions.projected(some)[:, :, 1:], found[:, [0, 3], 1:])
    vectors = draw.normal(size=(70, 2, 3, 6))
    one_by_one = np.stack(list(projections(tokens, vectors)))
    for number in (0, 69):
        own = themselves(vectors[number]).projected(tokens)[0]
        length = np.linalg.norm(vectors[number], axis=-1).T
        np.testing.assert_allclose(one_by_one[number] / length, own, atol=1e-12)


def test_the_mean_of_tokens_is_what_unit_means_say():
    values = np.random.default_rng(1).normal(size=(5, 7, 2, 6))
    unit = values / np.linalg.norm(values, axis=-1, keepdims=True)
    traces = xr.DataArray(values, {"layer": [0, 1]}, DIMS)
    directions = matched(unit[:, 0], 3, np.random.default_rng(2), 4)
    by_token = directions.projected(TokenResiduals(traces, [0, 1], Pooling("mean")))
    np.testing.assert_allclose(by_token, directions.projected(unit.mean(axis=1)), atol=1e-12)


def test_scores_are_pooled_and_shifts_stay_means(planted, pooled):
    folder, settings = planted
    cosines = read(folder, "organism/organism").sel(token=slice(0, None))
    rows = pooled.rows
    expected = cosines.max("token").sel(prompt=rows["prompt"].values)
    np.testing.assert_array_equal(rows["score"], expected.transpose("prompt", "layer", "trait"))
    plain = read_audit(folder, settings)
    assert not np.allclose(plain.rows["score"], rows["score"], atol=1e-2)
    for weights in ("", "clean_"):
        xr.testing.assert_equal(means_of(rows, weights), means_of(plain.rows, weights))
    assert "mean" not in gathered(folder, "organism", "organism")


def test_the_layer_is_among_those_kept_and_the_null_takes_the_same_pooling(pooled):
    kept = pooled.settings.model.window
    assert set(pooled.layers[pooled.allowed]) <= set(kept)
    first = detection.primary(pooled)[0]
    assert first.p < 0.01
    assert 0 < first.p_directions <= 1
    assert 0 < first.p_placebo <= 1
    assert first.no_null == ""
    found = nulls.rows(pooled)
    assert [row.decided for row in found] == [True] * 3
    assert len(units.rows(pooled)) == 3
    # the traits' own statistic is of the pooled tokens, not of unit means
    statistic, values = detection.primary_statistic(pooled)
    assert isinstance(values, TokenResiduals)
    vectors = pooled.vectors.sel(trait=list(pooled.traits)).transpose("trait", "layer", "dim")
    own = themselves(vectors.values)
    means = statistic(own.projected(pooled.means.sel(weights="organism").values))
    assert not np.allclose(statistic(own.projected(values)), means)


def test_where_no_layer_is_kept_the_traits_stand_beside_nothing_and_the_rows_say_why(planted):
    folder, settings = planted
    model = dataclasses.replace(settings.model, layers=(0, 1))
    audit = read_audit(folder, dataclasses.replace(by(settings, "max"), model=model))
    row = detection.primary(audit)[0]
    assert row.p_directions is None or np.isnan(row.p_directions)
    assert "directions are read at the layers kept in full (0–1)" in row.no_null
    assert not nulls.rows(audit)[0].decided


def test_the_hypothesis_says_its_pooling(planted):
    settings = planted[1]
    assert settings.hypothesis.stated == settings.hypothesis.text
    told = by(settings, "top_k(k=5)").hypothesis.stated
    assert "cosine pooled by top_k(k=5)" in told
    assert "response-mean" not in told
