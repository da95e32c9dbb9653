"""A probe of each data set on the report of every other; and traces straight into an evaluation."""

import json

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

import traits

AXIS = np.eye(8)


def data(name: str, direction: np.ndarray, seed: int) -> xr.DataArray:
    """Traces of 60 prompts of two samples, at two layers, that differ along a direction."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 2, 120)
    values = draw.normal(size=(120, 4, 2, 8)) + 1.5 * label[:, None, None, None] * direction
    coords = {
        "prompt": [f"{name}/{n}" for n in range(120)],
        "token": np.arange(4),
        "layer": [3, 4],
        "label": ("prompt", label),
        "group": ("prompt", [f"{name}/{n // 2}" for n in range(120)]),
    }
    return xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))


@pytest.fixture(scope="module")
def sets():
    made = {"a": data("a", AXIS[0], 0), "b": data("b", AXIS[0], 1), "c": data("c", -AXIS[0], 2)}
    return {name: (traces, "label") for name, traces in made.items()}


@pytest.fixture(scope="module")
def parts(sets):
    names = np.repeat(["fit", "select", "report"], [60, 20, 40])
    return {
        name: xr.DataArray(names, {"prompt": traces["prompt"].values}, "prompt")
        for name, (traces, _) in sets.items()
    }


def matrix(sets, parts, **how) -> xr.Dataset:
    draw = np.random.default_rng(0)
    return traits.transfer_matrix(sets, parts=parts, resamples=40, generator=draw, **how)


def test_each_cell_is_the_area_of_one_probe_on_one_report(sets, parts):
    found = matrix(sets, parts, method="mean_diff", pooling="max")
    assert found["auroc"].dims == ("fitted_on", "scored_on")
    for one in sets:
        probe = traits.fit(
            sets[one][0], "label", part=parts[one], method="mean_diff", pooling="max"
        )
        for other, (traces, _) in sets.items():
            report = traits.score(probe, traces)[80:]
            area = roc_auc_score(report["label"], report)
            cell = found.sel(fitted_on=one, scored_on=other)
            assert cell["auroc"].item() == pytest.approx(area)
            assert cell["low"] <= area <= cell["high"]
            flipped = report["label"].values.copy()
            flipped[0] = 1 - flipped[0]
            assert roc_auc_score(flipped, report) != pytest.approx(area)
    assert found["auroc"].sel(fitted_on="a", scored_on="b") > 0.8
    assert found["auroc"].sel(fitted_on="a", scored_on="c") < 0.2
    assert found["n"].sum("class").values.tolist() == [40, 40, 40]


def test_one_set_alone_and_prompts_of_two_sets_are_refused(sets, parts):
    with pytest.raises(ValueError, match="takes two data sets at least"):
        matrix({"a": sets["a"]}, parts)
    # the report of the other is what the first was fitted on
    turned = parts["a"].copy(data=parts["a"].values[::-1])
    with pytest.raises(ValueError, match="0 positive and 0 negative"):
        matrix({"a": sets["a"], "again": sets["a"]}, {"a": parts["a"], "again": turned})


def test_traces_are_scored_where_they_are_evaluated(sets, parts):
    traces, part = sets["a"][0], parts["a"]
    probe = traits.fit(traces, "label", part=part, pooling="top_k")
    draws = [np.random.default_rng(0) for _ in range(2)]
    whole = traits.evaluate_probe(probe, traces, "label", resamples=20, generator=draws[0])
    scores = traits.score(probe, traces)
    pooled = traits.evaluate_probe(probe, scores, "label", resamples=20, generator=draws[1])
    xr.testing.assert_identical(whole, pooled)
    assert int(whole["n"].sum()) == 40


def test_targets_are_evaluated_one_by_one(sets, parts):
    traces, part = sets["a"][0], parts["a"]
    other = np.random.default_rng(5).integers(0, 2, 120)
    labels = xr.DataArray(
        np.stack([traces["label"].values, other], 1),
        {"prompt": traces["prompt"].values, "target": ["told", "noise"]},
        ("prompt", "target"),
    )
    probe = traits.fit(traces, labels, part=part)
    draw = np.random.default_rng(0)
    found = traits.evaluate_probe(probe, traces, labels, resamples=20, generator=draw)
    scores = traits.score(probe, traces)[80:]
    for name in ("told", "noise"):
        area = roc_auc_score(labels.sel(target=name)[80:], scores.sel(target=name))
        assert found["estimate"].sel(target=name, measure="auroc").item() == pytest.approx(area)
    assert set(json.loads(found.attrs["findings"])) == {"told", "noise"}
