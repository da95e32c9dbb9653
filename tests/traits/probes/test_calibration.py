import numpy as np
import pytest
import xarray as xr
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

import traits
from traits.probes.calibration import calibrate, platt, probability


def drawn(seed=0, count=200, slope=1.5, intercept=-1.0):
    draw = np.random.default_rng(seed)
    score = draw.normal(size=count) * 3 + 10
    return score, draw.random(count) < expit(slope * (score - 10) + intercept)


class Column(ClassifierMixin, BaseEstimator):
    """A classifier whose decision is its one column."""

    def fit(self, rows, label):
        self.classes_ = np.array([False, True])
        return self

    def decision_function(self, rows):
        return rows[:, 0]

    def predict(self, rows):
        return rows[:, 0] > 0


def test_the_curve_is_the_librarys_sigmoid_calibration():
    score, label = drawn()
    frozen = FrozenEstimator(Column().fit(score[:, None], label))
    reference = CalibratedClassifierCV(frozen, method="sigmoid", ensemble=False)
    reference.fit(score[:, None], label)
    other = np.linspace(0, 20, 50)
    expected = reference.predict_proba(other[:, None])[:, 1]
    slope, intercept = platt(score, label)
    np.testing.assert_allclose(expit(slope * other + intercept), expected, atol=1e-4)
    label[0] = ~label[0]
    slope, intercept = platt(score, label)
    assert np.abs(expit(slope * other + intercept) - expected).max() > 1e-3


def test_it_finds_the_chances_that_made_the_labels():
    slope, intercept = platt(*drawn(count=20_000))
    assert slope == pytest.approx(1.5, rel=0.05)
    assert intercept == pytest.approx(-16.0, rel=0.05)


def test_classes_that_do_not_overlap_and_scores_all_alike_have_a_curve():
    score = np.array([0.0, 1.0, 5.0, 6.0])
    slope, intercept = platt(score, score > 2)
    assert 0 < slope < 100
    assert expit(slope * 6 + intercept) < 0.99
    slope, intercept = platt(np.full(4, 7.0), np.array([True, False, False, False]))
    # Platt's targets: 2/3 once and 1/5 three times
    assert (slope, expit(intercept)) == (0.0, pytest.approx((2 / 3 + 3 / 5) / 4))


def test_a_probe_keeps_its_curve_and_says_chances():
    score, label = drawn()
    rows = {"prompt": [f"a/{n}" for n in range(200)]}
    scores = xr.DataArray(score, rows, "prompt")
    labels = xr.DataArray(label.astype(float), rows, "prompt")[::-1].copy()
    labels[0] = np.nan
    bare = xr.Dataset({"calibration": ("coefficient", [np.nan] * 2)}, attrs={"kind": "probe"})
    probe = calibrate(bare, scores, labels)
    np.testing.assert_allclose(probe["calibration"], platt(score[:-1], label[:-1]))
    chance = probability(probe, scores)
    slope, intercept = probe["calibration"].values
    np.testing.assert_allclose(chance, expit(slope * score + intercept))
    assert chance.name == "probability"
    with pytest.raises(ValueError, match="the probe has no calibration"):
        probability(bare, scores)
    with pytest.raises(ValueError, match="199 responses are positive and 0 negative"):
        calibrate(bare, scores, labels * 0 + 1)


def test_each_target_has_its_own_curve():
    names = {"target": ["a", "b"], "coefficient": ["slope", "intercept"]}
    curves = xr.DataArray([[1.0, 0.0], [-2.0, 1.0]], names, ("target", "coefficient"))
    scores = xr.DataArray([[1.0, 1.0], [0.0, 2.0]], {"target": ["a", "b"]}, ("prompt", "target"))
    chance = probability(xr.Dataset({"calibration": curves}), scores)
    np.testing.assert_allclose(chance, expit([[1.0, -1.0], [0.0, -3.0]]))


def test_targets_are_calibrated_each_on_its_own_labels():
    (score, label), (other, truth) = drawn(), drawn(seed=1, slope=-2.0)
    both = {"target": ["a", "b"], "prompt": [f"a/{n}" for n in range(200)]}
    dims = ("prompt", "target")
    scores = xr.DataArray(np.stack([score, other], 1), both, dims)
    labels = xr.DataArray(np.stack([label, truth], 1) * 1.0, both, dims)
    curves = calibrate(xr.Dataset(attrs={"kind": "probe"}), scores, labels)["calibration"]
    np.testing.assert_allclose(curves.sel(target="a"), platt(score, label))
    np.testing.assert_allclose(curves.sel(target="b"), platt(other, truth))
    assert curves.sel(target="b", coefficient="slope") < 0


def test_fit_calibrates_on_the_part_that_chose():
    draw = np.random.default_rng(0)
    label = np.arange(90) % 2
    values = (draw.normal(size=(90, 4, 2, 5)) + label[:, None, None, None]).astype(np.float32)
    rows = {"prompt": [f"a/{n}" for n in range(90)], "label": ("prompt", label), "layer": [1, 2]}
    traces = xr.DataArray(
        values, {**rows, "token": np.arange(4)}, ("prompt", "token", "layer", "dim")
    )
    probe = traits.fit(traces, "label", groups=None, pooling=["mean", "max"])
    scores = traits.score(probe, traces)
    select = probe["part"].values == "select"
    np.testing.assert_allclose(
        probe["calibration"], platt(scores.values[select].astype(float), label[select] == 1), 1e-4
    )
    report = probe["part"].values == "report"
    assert not np.allclose(
        probe["calibration"], platt(scores.values[report].astype(float), label[report] == 1), 1e-4
    )
    bare = traits.fit(
        traces,
        "label",
        groups=None,
        layers=1,
        inverse_penalty=0.1,
        fractions={"fit": 0.7, "report": 0.3},
    )
    assert np.isnan(bare["calibration"]).all()
