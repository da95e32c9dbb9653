"""A probe on fewer groups: what is held fixed, what grows, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

import traits


def planted(effect=1.0, count=160, seed=0):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, 3, 2, 40)).astype(np.float32)
    label = np.repeat(draw.permutation(np.arange(count // 2) % 2), 2)
    values[label == 1, :, 1, :4] += effect
    coords = {
        "prompt": [f"a/{n}" for n in range(count)],
        "group": ("prompt", [f"g/{n // 2}" for n in range(count)]),
        "label": ("prompt", label),
        "token": np.arange(3),
        "layer": [5, 6],
    }
    return xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))


def curve(traces, labels="label", seed=1, **settings):
    settings = {"method": "mean_diff", "draws": 4, "resamples": 60, **settings}
    return traits.learning_curve(traces, labels, generator=np.random.default_rng(seed), **settings)


def test_more_groups_give_more_and_all_of_them_the_fit_itself():
    traces = planted(0.35)
    found = curve(traces)
    assert found["train_size"].values.tolist() == [10, 19, 29, 38, 48]
    assert found["estimate"][-1] > found["estimate"][0] + 0.03
    assert (found["low"] <= found["estimate"]).all()
    assert (found["estimate"] <= found["high"]).all()
    np.testing.assert_allclose(found["estimate"], found["test_score"].mean("draw"))
    generator = np.random.default_rng(1)
    probe = traits.fit(traces, "label", method="mean_diff", generator=generator)
    report = probe["part"].values == "report"
    scores = traits.score(probe, traces).values
    area = roc_auc_score(traces["label"][report], scores[report])
    np.testing.assert_allclose(found["test_score"][-1], area)
    assert not np.allclose(found["test_score"][0], area)


def test_groups_stay_whole_and_classes_keep_their_share():
    found = curve(planted(), train_sizes=[8, 24])
    assert (found["n_prompts"].sel(train_size=8) == 16).all()
    assert (found["layer"].sel(train_size=24) == 6).all()
    assert len(np.unique(found["test_score"].sel(train_size=8))) > 1


def test_the_report_is_read_for_the_test_score_alone():
    traces = planted(0.5)
    generator = np.random.default_rng(1)
    part = traits.fit(traces, "label", method="mean_diff", generator=generator)["part"]
    label = traces["label"].values
    label = np.where(part.values == "report", 1 - label, label)
    turned = traces.assign_coords(label=("prompt", label))
    other, own = (curve(one, train_sizes=[10], part=part) for one in (turned, traces))
    np.testing.assert_allclose(other["test_score"], 1 - own["test_score"])
    np.testing.assert_allclose(other["train_score"], own["train_score"])
    assert np.abs(own["test_score"] - 0.5).min() > 0.02


def test_without_a_signal_the_curve_is_flat():
    found = curve(planted(0.0, count=400), train_sizes=[0.3, 1.0])
    # the deviation of an AUROC of 40 against 40 prompts in pairs is about 0.08
    assert (abs(found["estimate"] - 0.5) < 0.25).all()
    assert (found["low"] < 0.5).all()
    assert (found["train_score"] > 0.6).all()


def test_sizes_that_are_none_are_refused():
    for sizes in ([0], [500], []):
        with pytest.raises(ValueError, match="of the 48 groups in 'fit'"):
            curve(planted(), train_sizes=sizes)
