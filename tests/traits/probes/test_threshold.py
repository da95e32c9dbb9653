"""A threshold: its rate is exact, its unit is the prompt, and too few negatives are refused."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import tracekit as tk
import traits
from traits.probes.threshold import exact_interval, least_negatives, pinning_negatives

PROBE = xr.Dataset({"threshold": np.nan}, attrs={"kind": "probe", "pooling": "mean"})


def scores(values, group=None, **attributes) -> xr.DataArray:
    values = np.asarray(values, float)
    coords = {"prompt": [f"set/{n}" for n in range(len(values))]}
    if group is not None:
        coords["group"] = ("prompt", group)
    return xr.DataArray(values, coords, "prompt", attrs=attributes)


def test_the_rate_its_interval_and_recall_are_those_of_plain_counts():
    draw = np.random.default_rng(0)
    negatives, positives = draw.normal(size=500), draw.normal(2.0, size=120)
    ready = traits.set_threshold(PROBE, scores(negatives), fpr=0.05, positives=scores(positives))
    value = ready["threshold"].item()
    flagged = int((negatives > value).sum())
    assert flagged == 25 == ready["threshold_false_positives"]
    expected = stats.binomtest(25, 500).proportion_ci(method="exact")
    found = ready["threshold_low"].item(), ready["threshold_high"].item()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.allclose(found, stats.binomtest(24, 500).proportion_ci())
    recall = (positives > value).mean()
    assert ready["threshold_recall"].item() == pytest.approx(recall)
    assert ready["threshold_recall_low"] < recall < ready["threshold_recall_high"]
    assert (ready["threshold_n"].item(), ready["threshold_n_positive"].item()) == (500, 120)
    assert ready.attrs["threshold_on"] == "set"
    # one more that is flagged is more than the rate allows
    assert (np.delete(negatives, 0) > np.sort(negatives)[-27]).sum() > 25


def test_the_interval_holds_the_rate_on_negatives_never_seen():
    draw, inside = np.random.default_rng(1), []
    for _ in range(200):
        ready = traits.set_threshold(PROBE, scores(draw.normal(size=300)), fpr=0.02)
        true = stats.norm.sf(ready["threshold"].item())
        inside.append(ready["threshold_low"].item() <= true <= ready["threshold_high"].item())
    # 95 % of 200: at least 180 but for one run in a thousand
    assert np.sum(inside) >= 180


def test_samples_of_a_prompt_are_one_unit():
    draw = np.random.default_rng(2)
    of = np.repeat(np.arange(150), 4)
    values = draw.normal(size=600)
    negatives = scores(values, of)
    ready = traits.set_threshold(PROBE, negatives, fpr=0.05, positives=negatives + 3)
    value, table = ready["threshold"].item(), values.reshape(150, 4)
    assert ready["threshold_n"].item() == 150
    assert ready["threshold_false_positives"].item() == (table > value).any(1).sum() == 7
    assert ready["threshold_recall"].item() == (table + 3 > value).all(1).mean()
    # rows as units: another threshold, and an interval that is too narrow
    rows = traits.set_threshold(PROBE, scores(values), fpr=0.05)
    assert rows["threshold"].item() < value
    assert rows["threshold_high"] < ready["threshold_high"]
    # 600 rows would do for 1 %, 150 prompts do not
    traits.set_threshold(PROBE, scores(values))
    with pytest.raises(ValueError, match="150 negative prompts cannot support"):
        traits.set_threshold(PROBE, negatives)


@pytest.mark.parametrize(("fpr", "confidence"), [(0.01, 0.95), (0.05, 0.95), (0.02, 0.9)])
def test_the_numbers_that_support_and_pin_a_rate_are_the_least(fpr, confidence):
    due = least_negatives(fpr, confidence)
    assert (1 - fpr) ** due <= 1 - confidence < (1 - fpr) ** (due - 1)
    pin = pinning_negatives(fpr, confidence)

    def pinned(count):
        low, high = exact_interval(int(fpr * count + 1e-9), count, confidence)
        return low >= fpr / 2 and high <= fpr * 1.5

    step = round(1 / fpr)
    assert not all(pinned(count) for count in range(pin - step, pin))
    assert all(pinned(count) for count in range(pin, 2 * pin, 7))


def test_a_rate_that_n_cannot_support_is_refused_with_how_many_would_do():
    draw = np.random.default_rng(3)
    with pytest.raises(ValueError, match=r"298 negative.*could still be 1\.00%.*takes 299: give 1"):
        traits.set_threshold(PROBE, scores(draw.normal(size=298)))
    assert np.isfinite(traits.set_threshold(PROBE, scores(draw.normal(size=299)))["threshold"])
    with pytest.raises(ValueError, match="takes 299: give 279 more"):
        traits.set_threshold(PROBE, scores(draw.normal(size=20)))


def test_constant_unfinished_and_foreign_scores_are_refused():
    values = np.random.default_rng(4).normal(size=400)
    with pytest.raises(ValueError, match="All 400 scores of the negatives are 2"):
        traits.set_threshold(PROBE, scores(np.full(400, 2.0)))
    with pytest.raises(ValueError, match="1 of 400 scores of the negatives are not finite"):
        traits.set_threshold(PROBE, scores(np.where(np.arange(400) == 7, np.nan, values)))
    with pytest.raises(ValueError, match="pooled by 'max' and the probe pools by 'mean'"):
        traits.set_threshold(PROBE, scores(values, pooling="max"))
    with pytest.raises(ValueError, match=r"dims \('prompt', 'token'\)"):
        traits.set_threshold(PROBE, scores(values).expand_dims(token=2, axis=1))
    with pytest.raises(ValueError, match=r"fpr=1\.0 with"):
        traits.set_threshold(PROBE, scores(values), fpr=1.0)


def test_tied_scores_flag_no_more_than_the_rate_allows():
    values = np.repeat([0.0, 1.0, 2.0], [300, 80, 20])
    ready = traits.set_threshold(PROBE, scores(values), fpr=0.04)
    assert ready["threshold"].item() == 2.0
    assert ready["threshold_false_positives"].item() == 0


def test_each_target_has_its_own_threshold():
    draw = np.random.default_rng(5)
    values = xr.DataArray(draw.normal(size=(400, 2)) * [1, 5], dims=("prompt", "target"))
    probe = xr.Dataset({"threshold": ("target", [np.nan, np.nan])}, attrs=PROBE.attrs)
    ready = traits.set_threshold(probe, values, fpr=0.05)
    for place in range(2):
        alone = traits.set_threshold(PROBE, values.isel(target=place), fpr=0.05)
        for name in ("threshold", "threshold_high", "threshold_false_positives"):
            assert ready[name].values[place] == alone[name].item()


def test_a_probe_with_its_threshold_is_a_file(tmp_path):
    probe = tk.stamp(PROBE, {"made_by": "a test"})
    ready = traits.set_threshold(probe, scores(np.random.default_rng(6).normal(size=400)))
    there = tk.open(tk.save(ready, tmp_path / "probe.nc"))
    assert there["threshold"].item() == ready["threshold"].item()
    assert there.attrs["threshold_on"] == "set"
