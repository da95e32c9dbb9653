import json

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from experiments.benchmarks.measuring import statistics_size
from tests.support.oracles.planted import contrast_traces
from traits.statistics import paired_auroc, paired_effect
from traits.vectors.evaluation import evaluate, held_out_auroc
from traits.vectors.extraction import extract
from traits.vectors.methods import METHODS
from traits.vectors.pairing import pairs, select_part, split_pairs
from traits.vectors.projection import project
from traits.vectors.summary_table import summary


def strong(seed=0, **more):
    return contrast_traces(np.random.default_rng(seed), pairs=200, effect=3.0, **more)


def run(traces, methods=("mean_diff",), seed=1, **more):
    more = {"draws": 19, "resamples": 50, **more}
    return evaluate(traces, methods, generator=np.random.default_rng(seed), **more)


def said(result):
    return " | ".join(json.loads(result.attrs["findings"]))


def test_held_out_auroc_rises_with_the_planted_effect_only():
    curve = held_out_auroc(strong(), generator=np.random.default_rng(1))
    assert 0.35 < float(curve.sel(layer=0)) < 0.65
    assert float(curve.sel(layer=2)) > 0.9
    counts = {name: curve.attrs[name] for name in ("fit_pairs", "report_pairs")}
    assert counts == {"fit_pairs": 100, "report_pairs": 100}


def test_noise_that_is_fitted_perfectly_is_not_found_again():
    traces = contrast_traces(np.random.default_rng(0), pairs=200, layers=6, dim=600)
    curve = held_out_auroc(traces, "probe", generator=np.random.default_rng(1))
    assert abs(float(curve.mean()) - 0.5) < 0.06


@pytest.mark.parametrize("kind", ["scalar", "cosine"])
def test_the_result_is_that_of_the_public_steps_one_by_one(kind):
    traces = strong()
    part = split_pairs(pairs(traces)[0]["pair"], generator=np.random.default_rng(5))
    result = run(traces, ("mean_diff", "whitened"), part=part, kind=kind)
    method, layer = result["selected_extraction"].item(), result["selected_layer"].item()
    vector = extract(select_part(traces, part, "fit"), method).sel(layer=layer)
    sides = pairs(select_part(traces, part, "report").sel(layer=layer))
    positive, negative = (project(side, vector, kind) for side in sides)
    found = result["estimate"]
    np.testing.assert_allclose(found.sel(measure="auroc"), paired_auroc(positive, negative))
    effect = paired_effect(positive - negative)
    np.testing.assert_allclose(found.sel(measure="effect_size"), effect, rtol=1e-5)
    concordance = float((positive > negative).mean())
    np.testing.assert_allclose(found.sel(measure="concordance"), concordance)
    place = {"part": "report", "extraction": method, "layer": layer, "window": "all"}
    curve = result["curve"].sel(place)  # by keyword, `method` would be xarray's own argument
    np.testing.assert_allclose(curve, paired_auroc(positive, negative))
    fit = pairs(select_part(traces, part, "fit").sel(layer=layer))
    middle = sum(project(side, vector, kind).mean() for side in fit) / 2
    right = ((positive > middle).mean() + (negative <= middle).mean()) / 2
    np.testing.assert_allclose(found.sel(measure="accuracy"), right)
    other = extract(select_part(traces, part, "select"), method).sel(layer=layer)
    assert float(paired_effect(project(sides[0] - sides[1], other))) != pytest.approx(float(effect))


def test_a_planted_trait_passes_and_its_path_is_named():
    result = run(strong(), ("mean_diff", "probe", "whitened"))
    assert result["selected_layer"].item() == 2
    assert float(result["p"]) < 0.001
    assert (result["null_p"] <= 0.05).all()
    assert float(result["low"].sel(measure="auroc")) > 0.85
    assert float(result["p_family"].sel(layer=2).max()) < 0.01
    assert float(result["p_family"].sel(layer=0).min()) > 0.05
    assert [int(result[f"n_{name}"]) for name in ("fit", "select", "report")] == [100, 40, 60]
    assert result["trait"].item() == "alignment/planted"
    text = summary(result)
    for words in ("auroc 0.9", "[", "report 60", "permutation p", "shuffled pairs 95 %", "draws"):
        assert words in text
    assert "edge: the selected layer 2" in said(result)


def test_noise_does_not_pass_and_says_why():
    result = run(contrast_traces(np.random.default_rng(3), pairs=100))
    assert float(result["p"]) > 0.05
    for words in ("holds 0.5", "not above the shuffled pairs band"):
        assert words in said(result)


def test_the_result_is_a_file_that_stock_xarray_reads(tmp_path):
    result = run(strong())
    result.to_netcdf(tmp_path / "evaluation.nc")
    again = xr.open_dataset(tmp_path / "evaluation.nc")
    xr.testing.assert_allclose(again, result)
    joint = xr.concat([result, result.assign_coords(trait="alignment/other")], "trait")
    assert joint.sizes["trait"] == 2


def test_the_same_seed_gives_the_same_result_and_another_split_another():
    traces = strong()
    xr.testing.assert_identical(run(traces, seed=3), run(traces, seed=3))
    curves = [run(traces, seed=seed)["curve"] for seed in (3, 4)]
    assert not np.allclose(*curves)


def test_placebo_vectors_go_through_the_selection_oriented_in_their_favour():
    traces = strong()
    generator = np.random.default_rng(0)
    values = generator.normal(size=(25, 3, 24))
    placebos = xr.DataArray(values, dims=("trait", "layer", "dim"), coords={"layer": [0, 1, 2]})
    result = run(traces, placebos=placebos)
    assert result["null"].values.tolist()[-1] == "placebo"
    assert int(result["null_draws"].sel(null="placebo")) == 25
    assert float(result["null_p"].sel(null="placebo")) == pytest.approx(1 / 26)
    assert float(result["null_quantile"].sel(null="placebo", level=0.5)) > 0.5
    part = split_pairs(pairs(traces)[0]["pair"], generator=generator)
    truth = extract(select_part(traces, part, "fit")).expand_dims(trait=["same"])
    copied = run(traces, placebos=-truth.drop_vars("extraction"), part=part)
    assert float(copied["null_p"].sel(null="placebo")) == 1.0
    assert "few draws: 1 of placebo allow no p below 0.5" in said(copied)
    assert "not above the placebo band" in said(copied)


def test_the_covariance_of_the_null_can_be_given():
    traces = strong()
    samples = np.random.default_rng(0).normal(size=(40, 3, 24)) * 0.01
    samples[..., 0] += np.random.default_rng(1).normal(size=(40, 1)) * 5
    dims = ("sample", "layer", "dim")
    given = xr.DataArray(samples, dims=dims, coords={"layer": [0, 1, 2]})
    with_them, without = run(traces, samples=given), run(traces)
    band = [
        float(result["null_quantile"].sel(null="covariance-matched", level=0.95))
        for result in (with_them, without)
    ]
    assert band[0] > 0.95 > band[1]


def test_the_token_window_is_selected_like_the_layer():
    early, late = contrast_traces(np.random.default_rng(0), pairs=200), strong(1)
    tokens = xr.concat([early, late], "token").assign_coords(token=[0, 1])
    windows = {"first": slice(0, 0), "second": slice(1, 1), "both": slice(0, 1)}
    result = run(tokens, windows=windows)
    assert result["selected_window"].item() == "second"
    assert result["curve"].sizes["window"] == 3
    with pytest.raises(ValueError, match=r"windows \['first'\] were asked for"):
        run(late, windows={"first": slice(0, 0)})


def test_chances_are_calibrated_on_pairs_that_are_not_reported():
    brier = {}
    for effect in (0.0, 3.0):
        result = run(contrast_traces(np.random.default_rng(2), pairs=300, effect=effect))
        brier[effect] = float(result["estimate"].sel(measure="brier"))
        assert float(result["estimate"].sel(measure="calibration_error")) < 0.2
    assert 0.2 < brier[0.0] < 0.3
    assert brier[3.0] < 0.1


def test_a_vector_of_the_wrong_sign_is_called_so():
    def wrong(positive, negative):
        return -METHODS["mean_diff"](positive, negative)

    result = run(strong(layers=2), {"wrong": wrong, "also": wrong})
    assert float(result["estimate"].sel(measure="auroc")) < 0.6
    only = strong().sel(layer=[2])
    assert "wrong sign: AUROC 0.0" in said(run(only, {"wrong": wrong}))


def test_a_set_told_apart_perfectly_is_called_so():
    result = run(contrast_traces(np.random.default_rng(0), pairs=60, effect=40.0))
    assert "ceiling: AUROC 1.000 on 18 pairs" in said(result)


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="30 pairs in 30 separable units"):
        run(contrast_traces(np.random.default_rng(0), pairs=30))
    with pytest.raises(ValueError, match=r"'median'.*there are mean_diff"):
        run(strong(), ["median"])
    placebos = xr.DataArray(np.ones((2, 1, 24)), {"layer": [1]}, ("trait", "layer", "dim"))
    with pytest.raises(
        ValueError, match=r"placebos have the layers \[1\].*no placebo for \[0, 2\]"
    ):
        run(strong(), placebos=placebos)
    with pytest.raises(ValueError, match="'sd' was asked for; evaluate has 'scalar' and 'cosine'"):
        run(strong(), kind="sd")

    def across(positive, negative):
        return np.eye(3, 24)

    flat = strong()
    flat[..., :3] = 1.0
    with pytest.raises(ValueError, match="All 200 scores of the chosen vector are 1"):
        run(flat, {"across": across})


def test_the_whole_procedure_holds_its_size_on_noise_with_massive_dims():
    rows = statistics_size.size(60, 0, ["mean_diff", "whitened"])
    for row in rows:
        assert binomtest(row["rejected"], row["repetitions"], 0.05).pvalue > 0.01, row
    assert {row["test"] for row in rows} >= {"permutation", "shuffled pairs", "covariance-matched"}


def test_the_whole_procedure_finds_a_strong_effect_and_recovers_what_theory_allows():
    (row,) = statistics_size.power(12, 1, [4.0])
    assert row["rejected"] >= 11
    assert abs(row["cosine"] - row["theory"]) < 0.03


def test_the_table_is_saved(tmp_path):
    rows = [{"test": "permutation", "d": 0.0, "rate": 0.04812345}]
    statistics_size.save(rows, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[1].startswith("permutation,0,,,0.04812")


def test_pairs_that_fitted_or_selected_are_no_report():
    noise = contrast_traces(np.random.default_rng(0), pairs=100, dim=100)
    names = noise["group"].values
    renamed = noise.assign_coords(group=("prompt", [f"other/{name}" for name in names]))
    again = noise * (1 + 1e-4 * np.random.default_rng(1).normal(size=noise.shape))
    for known in (noise, renamed, again.assign_coords(noise.coords)):
        with pytest.raises(ValueError, match="70 of 100 pairs given as report= are among those"):
            run(noise, report=known)
    windows = xr.concat([noise, noise], "token").assign_coords(token=[0, 1])
    with pytest.raises(ValueError, match="70 of 100 pairs"):
        run(windows, windows={"first": slice(0, 0), "second": slice(1, 1)}, report=noise + 1)


def test_pairs_of_the_report_part_and_other_texts_of_the_same_names_are_a_report():
    traces, other = strong(), strong(5)
    part = split_pairs(pairs(traces)[0]["pair"], generator=np.random.default_rng(5))
    own = run(traces, part=part)
    given = run(traces, part=part, report=select_part(traces, part, "report"))
    np.testing.assert_allclose(given["estimate"], own["estimate"])
    assert int(run(traces, report=other)["n_report"]) == 200
