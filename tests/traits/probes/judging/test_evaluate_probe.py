"""What is reported of a probe: measures as scikit-learn has them, units, kinds, texts, nulls."""

import json

import numpy as np
import pytest
import xarray as xr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

import traits


def probe(**variables) -> xr.Dataset:
    known = {"calibration": ("coefficient", [1.5, -0.5]), "threshold": 1.0}
    return xr.Dataset({**known, **variables}, attrs={"kind": "probe", "pooling": "mean"})


def responses(count=400, kinds=5, effect=1.0, seed=0) -> xr.DataArray:
    """Scores with labels, groups of two samples, kinds, and texts that say nothing."""
    draw = np.random.default_rng(seed)
    label, row = draw.integers(0, 2, count), np.arange(count)
    words = np.array(["red", "blue", "green", "grey"])
    coords = {
        "prompt": [f"set/{n}" for n in row],
        "label": ("prompt", label),
        "group": ("prompt", [f"set/{n // 2}" for n in row]),
        "kind": ("prompt", [f"kind {n // 2 % kinds}" for n in row]),
        "text": ("prompt", [" ".join(words[draw.integers(0, 4, 6)]) for _ in row]),
    }
    return xr.DataArray(effect * label + draw.normal(size=count), coords, "prompt")


def evaluated(scores, **options) -> xr.Dataset:
    options = {"resamples": 60, "generator": np.random.default_rng(0), **options}
    return traits.evaluate_probe(options.pop("probe", probe()), scores, "label", **options)


def test_the_measures_are_those_of_scikit_learn():
    scores = responses()
    found = evaluated(scores)["estimate"].to_series()
    label, values = scores["label"].values, scores.values
    chance = 1 / (1 + np.exp(-(1.5 * values - 0.5)))
    assert found["auroc"] == pytest.approx(roc_auc_score(label, values))
    assert found["brier"] == pytest.approx(brier_score_loss(label, chance))
    for rate in (0.01, 0.05):
        false, true, _ = roc_curve(label, values, drop_intermediate=False)
        expected = true[false <= rate + 1e-9].max()
        assert found[f"recall_at_{rate}"] == pytest.approx(expected)
    assert found["recall"] == (values[label == 1] > 1).mean()
    assert found["false_positive_rate"] == (values[label == 0] > 1).mean()
    changed = scores.copy(
        data=np.where(np.arange(400) == scores.argmax("prompt").item(), -9, values)
    )
    assert evaluated(changed)["estimate"].sel(measure="auroc") != found["auroc"]


def test_the_curve_and_its_error_are_plain_bins():
    scores = responses()
    found = evaluated(scores)
    chance = 1 / (1 + np.exp(-(1.5 * scores.values - 0.5)))
    parts = np.array_split(np.argsort(chance, kind="stable"), 10)
    rates = [scores["label"].values[part].mean() for part in parts]
    np.testing.assert_allclose(found["curve_rate"], rates)
    gaps = [abs(chance[part].mean() - rate) for part, rate in zip(parts, rates, strict=True)]
    error = found["estimate"].sel(measure="calibration_error").item()
    assert error == pytest.approx(np.mean(gaps))
    assert (found["curve_low"] <= found["curve_rate"]).all()


def test_samples_of_a_prompt_make_no_interval_narrower():
    scores = responses(200)
    once = scores.assign_coords(group=("prompt", scores["prompt"].values))
    twice = xr.concat([once] * 4, "prompt").assign_coords(prompt=[f"s/{n}" for n in range(800)])
    width = lambda found: (found["high"] - found["low"]).sel(measure="auroc").item()
    alone, copied = (width(evaluated(each, resamples=150)) for each in (once, twice))
    assert copied == pytest.approx(alone, rel=0.25)
    rows = twice.assign_coords(group=("prompt", twice["prompt"].values))
    assert width(evaluated(rows, resamples=150)) < 0.7 * alone


def test_parts_that_fitted_or_chose_are_not_reported_on():
    scores = responses()
    part = np.repeat(["fit", "select", "report"], [200, 100, 100])
    of = probe(part=xr.DataArray(part, {"prompt": scores["prompt"].values}, "prompt"))
    found = evaluated(scores, probe=of)
    assert int(found["n"].sum()) == 100
    report = scores.isel(prompt=slice(300, None))
    expected = roc_auc_score(report["label"], report)
    assert found["estimate"].sel(measure="auroc").item() == pytest.approx(expected)
    # of other data everything counts
    other = scores.assign_coords(prompt=[f"other/{n}" for n in range(400)])
    assert int(evaluated(other, probe=of)["n"].sum()) == 400
    split = scores.assign_coords(group=("prompt", np.roll(scores["group"].values, 1)))
    with pytest.raises(ValueError, match="groups have samples that fitted or chose the probe"):
        evaluated(split, probe=of)


def test_words_that_carry_the_label_are_no_gain_of_the_probe():
    scores = responses()
    part = xr.DataArray(
        np.repeat(["fit", "report"], 200), {"prompt": scores["prompt"].values}, "prompt"
    )
    told = np.where(scores["label"] == 1, "yes ", "no ") + scores["text"].values.astype(object)
    of = probe(part=part)
    plain = evaluated(scores, probe=of, texts="text", resamples=200)
    worded = scores.assign_coords(text=("prompt", told.astype(str)))
    given = evaluated(worded, probe=of, texts="text", resamples=200)
    gain = [each["gain"].sel(baseline="tf-idf").item() for each in (plain, given)]
    assert plain["gain_low"].sel(baseline="tf-idf") > 0
    assert given["gain_high"].sel(baseline="tf-idf") < 0
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2), sublinear_tf=True)
    fit, label = np.arange(400) < 200, scores["label"].values
    counts = words.fit_transform(told[fit])
    model = LogisticRegression(C=10, max_iter=1000, class_weight="balanced").fit(counts, label[fit])
    expected = roc_auc_score(label[~fit], model.decision_function(words.transform(told[~fit])))
    assert given["baseline_auroc"].sel(baseline="tf-idf").item() == pytest.approx(expected)
    own = given["estimate"].sel(measure="auroc").item()
    assert gain[1] == pytest.approx(own - expected)
    assert gain[0] > gain[1]
    with pytest.raises(ValueError, match="its 0 texts have 0 positive"):
        evaluated(scores, texts="text")


def test_kinds_widen_the_interval_where_they_differ_and_few_of_them_are_undecidable():
    scores = responses(600)
    same = evaluated(scores, kinds="kind")
    shifts = {f"kind {n}": shift for n, shift in enumerate((3.0, 1.0, 0.0, -1.0, -2.0))}
    effect = np.array([shifts[kind] for kind in scores["kind"].values])
    apart = evaluated(scores + effect * scores["label"], kinds="kind")
    width = lambda found, start: (found[f"{start}high"] - found[f"{start}low"]).sel(measure="auroc")
    assert width(apart, "over_kinds_") > 2 * width(same, "over_kinds_")
    assert width(apart, "over_kinds_") > 3 * width(apart, "")
    by_kind = same["by_kind"].sel(measure="auroc")
    for kind in by_kind["kind"].values:
        rows = scores["kind"].values == kind
        expected = roc_auc_score(scores["label"][rows], scores[rows])
        assert by_kind.sel(kind=kind).item() == pytest.approx(expected)
    few = evaluated(scores, kinds=xr.where(scores["kind"] == "kind 0", "a", "b"))
    assert np.isnan(few["over_kinds_low"].sel(measure="auroc"))
    assert "other kinds: undecidable, 2 kinds have both classes; 3 are due" in json.loads(
        few.attrs["findings"]
    )


def test_a_kind_with_one_class_is_named_with_its_numbers():
    scores = responses(600)
    label = np.where(scores["kind"] == "kind 1", 0, scores["label"])
    single = scores.assign_coords(label=("prompt", label))
    found = evaluated(single, kinds="kind")
    assert np.isnan(found["by_kind"].sel(kind="kind 1", measure="auroc"))
    assert np.isfinite(found["over_kinds_low"].sel(measure="auroc"))
    told = " ".join(json.loads(found.attrs["findings"]))
    assert "without an AUROC: kind 1 (120 negative, 0 positive)" in told


def test_a_rate_that_the_negatives_cannot_tell_is_undecidable_with_numbers():
    found = evaluated(responses(120))
    assert np.isnan(found["estimate"].sel(measure="recall_at_0.01"))
    negatives = int(found["n"][0])
    told = json.loads(found.attrs["findings"])
    assert f"recall_at_0.01: undecidable, {negatives} negatives; 100 are due" in told
    bare = xr.Dataset(attrs={"kind": "probe"})
    told = json.loads(evaluated(responses(), probe=bare).attrs["findings"])
    assert "brier: the probe has no calibration" in told
    assert "recall: the probe has no threshold (traits.set_threshold)" in told


def test_nulls_stand_beside_the_area():
    scores = responses()
    draws = np.linspace(0.4, 0.6, 99)
    nulls = xr.DataArray([draws, draws + 0.35], {"null": ["low", "high"]}, ("null", "draw"))
    found = evaluated(scores, nulls=nulls)
    area = found["estimate"].sel(measure="auroc").item()
    assert found["null_p"].sel(null="low").item() == 0.01
    expected = (1 + (draws + 0.35 >= area).sum()) / 100
    assert found["null_p"].sel(null="high").item() == pytest.approx(expected)


def test_labels_that_match_nothing_one_class_and_constant_scores_are_refused():
    scores = responses()
    with pytest.raises(ValueError, match=r"The labels lack 1 of 400 prompts \(first: 'set/399'\)"):
        traits.evaluate_probe(
            probe(), scores, scores["label"][:399], generator=np.random.default_rng(0)
        )
    with pytest.raises(ValueError, match="0 positive and 400 negative"):
        evaluated(scores.assign_coords(label=("prompt", np.zeros(400))))
    with pytest.raises(ValueError, match=r"The labels hold \[2.0\]"):
        evaluated(scores.assign_coords(label=("prompt", np.r_[2, np.zeros(399)])))
    with pytest.raises(ValueError, match="All 400 responses to report on have the score 1"):
        evaluated(scores.copy(data=np.ones(400)))
    with pytest.raises(ValueError, match="1 of 400 labelled responses have a score that is not"):
        evaluated(scores.copy(data=np.r_[np.nan, scores.values[1:]]))


def test_responses_without_a_label_are_left_out():
    scores = responses()
    label = np.where(np.arange(400) < 50, np.nan, scores["label"])
    found = evaluated(scores.assign_coords(label=("prompt", label)))
    assert int(found["n"].sum()) == 350
    expected = roc_auc_score(scores["label"][50:], scores[50:])
    assert found["estimate"].sel(measure="auroc").item() == pytest.approx(expected)
