"""Values that are missing, infinite, huge, tiny or all alike: refused by name, or a true number."""

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from traits import agreement, extract, project
from traits.statistics import paired_auroc, paired_effect, rank_auroc, rank_differences
from traits.statistics.bootstrap import cluster_bootstrap
from traits.statistics.permutation import against_null, max_statistic, sign_flip
from traits.vectors.measures import measure, with_chances
from traits.vectors.methods import METHODS
from traits.vectors.summary_table import findings, interval

MISSING = [np.nan, np.inf, -np.inf]


def draws(seed=0, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def over(dim, values):
    return xr.DataArray(np.asarray(values, float), dims=dim)


@pytest.mark.parametrize("wrong", MISSING)
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_a_p_value_of_what_is_not_finite_is_refused(wrong, alternative):
    null = over("draw", draws(0, 99))
    with pytest.raises(ValueError, match="1 of 1 observed values and 0 of 99"):
        against_null(over((), wrong), null, alternative=alternative)
    null[3] = wrong
    with pytest.raises(ValueError, match="0 of 1 observed values and 1 of 99"):
        against_null(over((), 9.0), null, alternative=alternative)


@pytest.mark.parametrize("wrong", MISSING)
def test_the_best_of_a_family_is_not_sought_among_missing_values(wrong):
    observed, null = (
        over("layer", [1.0, wrong]),
        xr.DataArray(draws(0, 99, 2), dims=("draw", "layer")),
    )
    with pytest.raises(ValueError, match="1 of 2 observed"):
        max_statistic(observed, null, ["layer"])
    null[5, 1] = wrong
    with pytest.raises(ValueError, match="1 of 198 values of 99 draws"):
        max_statistic(over("layer", [1.0, 2.0]), null, ["layer"])


def test_all_the_draws_there_are_hold_the_observed_one():
    with pytest.raises(ValueError, match="do not hold the observed value"):
        against_null(over((), 9.0), over("draw", [1.0, 2.0]), exact=True)
    assert against_null(over((), 2.0), over("draw", [1.0, 2.0]), exact=True)["p"] == 0.5


@pytest.mark.parametrize("scale", [1e-320, 1e-160, 1.0, 1e160, 1e307])
@pytest.mark.parametrize("count", [8, 20])
def test_a_sign_flip_is_blind_to_the_scale(scale, count):
    values = over("prompt", draws(1, count) + 1)
    if scale > 1e-300:
        expected = sign_flip(values, generator=np.random.default_rng(0), group=None, family=())
        found = sign_flip(values * scale, generator=np.random.default_rng(0), group=None, family=())
        np.testing.assert_allclose(found["p"], expected["p"], rtol=1e-12)
        np.testing.assert_allclose(found["statistic"], expected["statistic"], rtol=1e-9)
        np.testing.assert_allclose(found["estimate"] / scale, expected["estimate"], rtol=1e-9)
        other = sign_flip(
            -3 * values * scale + scale, generator=np.random.default_rng(0), group=None
        )
        assert abs(other["statistic"] - expected["statistic"]) > 0.1
    else:  # next to nothing: a p all the same
        found = sign_flip(values * scale, generator=np.random.default_rng(0), group=None)
        assert 0 < found["p"] <= 1


def test_where_nothing_differs_p_is_one():
    found = sign_flip(over("prompt", np.zeros(12)), generator=np.random.default_rng(0), group=None)
    assert found["p"] == 1
    assert found["statistic"] == 0


@pytest.mark.parametrize("alike", [0.0, 0.1, 1e-9, 1e12])
def test_differences_that_do_not_vary_have_no_effect_in_their_own_units(alike):
    rows = xr.DataArray([np.full(7, alike), draws(2, 7)], dims=("layer", "pair"))
    with pytest.warns(UserWarning, match="do not vary at 1 of 2 places"):
        found = paired_effect(rows)
    assert np.isnan(found[0])
    expected = stats.ttest_1samp(rows[1], 0).statistic / np.sqrt(7)
    np.testing.assert_allclose(found[1], expected, rtol=1e-12)
    with pytest.warns(UserWarning, match="do not vary at 1 of 1"):
        assert np.isnan(paired_effect(over("pair", [2.0])))


@pytest.mark.parametrize("wrong", MISSING)
def test_scores_that_are_not_finite_have_no_area(wrong):
    sides = [over("pair", draws(n, 6)) for n in (0, 1)]
    sides[1][2] = wrong
    for area in (paired_auroc, rank_differences):
        with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
            area(*sides)
    with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
        rank_auroc(*(side.values for side in sides))
    with pytest.raises(ValueError, match="1 of 6 paired differences are not finite"):
        paired_effect(sides[1])


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_draws_without_a_value_are_counted_and_leave_no_interval(kind):
    rows = over("prompt", [0.0, 0.0, 0.0, 1.0])
    found = cluster_bootstrap(
        rows,
        lambda drawn: 1 / drawn.mean("prompt"),
        generator=np.random.default_rng(0),
        group=None,
        repetitions=200,
        interval=kind,
    )
    generator = np.random.default_rng(0)
    indices = [generator.integers(0, 4, size=4) for _ in range(200)]
    assert found.attrs["undefined"] == sum(3 not in drawn for drawn in indices) > 0
    assert found["estimate"] == 4
    assert np.isnan(found["low"])
    assert np.isnan(found["high"])


@pytest.mark.parametrize("settings", [{"level": 95.0}, {"level": 0.0}, {"repetitions": 0}])
def test_a_bootstrap_of_nothing_is_refused(settings):
    rows = over("prompt", draws(0, 5))
    with pytest.raises(ValueError, match="between 0 and 1"):
        cluster_bootstrap(
            rows,
            lambda drawn: drawn.mean(),
            generator=np.random.default_rng(0),
            group=None,
            **settings,
        )


@pytest.mark.parametrize("wrong", [0.0, *MISSING])
@pytest.mark.parametrize("kind", ["scalar", "cosine"])
def test_nothing_is_projected_on_a_vector_without_a_direction(wrong, kind):
    traces = xr.DataArray(draws(0, 3, 2, 4), dims=("prompt", "layer", "dim"))
    vectors = xr.DataArray(
        draws(1, 2, 2, 4), dims=("trait", "layer", "dim"), coords={"trait": ["a/b", "a/c"]}
    )
    vectors[1, 0] = wrong
    if wrong == 0 and kind == "scalar":
        assert (project(traces, vectors).isel(trait=1, layer=0) == 0).all()
        return
    with pytest.raises(ValueError, match=r"1 are .*not finite.*a/c"):
        project(traces, vectors, kind)
    with pytest.raises(ValueError, match="1 are zero or not finite"):
        agreement(vectors.isel(layer=0), over="trait")


def test_a_residual_of_zeros_has_no_cosine_and_its_neighbours_keep_theirs():
    traces = xr.DataArray(draws(0, 3, 2, 4), dims=("prompt", "layer", "dim"))
    vectors = xr.DataArray(draws(1, 2, 4), dims=("layer", "dim"))
    whole = project(traces, vectors, "cosine")
    traces[1, 0] = 0
    found = project(traces, vectors, "cosine")
    assert np.argwhere(np.isnan(found.values)).tolist() == [[1, 0]]
    np.testing.assert_array_equal(found[2], whole[2])


@pytest.mark.parametrize("method", METHODS)
def test_identical_sides_have_no_vector_by_any_method(method):
    labels = {"label": ("prompt", [1, 0] * 6), "group": ("prompt", np.repeat(range(6), 2))}
    labels["group"] = ("prompt", [f"a/b/{n}" for n in range(6) for _ in range(2)])
    values = draws(0, 12, 3, 5)
    values[1::2, 1] = values[::2, 1]
    traces = xr.DataArray(values, dims=("prompt", "layer", "dim"), coords=labels)
    with pytest.raises(ValueError, match=r"the same at 1 of 3 places .*\[\[1\]\]"):
        extract(traces, method)
    assert extract(traces.isel(layer=[0, 2]), method).sizes["layer"] == 2


def test_a_curve_is_not_fitted_on_scores_that_do_not_vary():
    alike = xr.Dataset({"positive": ("pair", [1.0, 1.0]), "negative": ("pair", [1.0, 1.0])})
    with pytest.raises(ValueError, match="4 calibration scores have the deviation 0"):
        with_chances(alike, alike)


def test_a_measure_without_a_value_says_so():
    sides = {"positive": ("pair", [2.0, 3.0, 4.0]), "negative": ("pair", [1.0, 2.0, 3.0])}
    scores = xr.Dataset({**sides, "threshold": 2.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = measure(with_chances(scores, scores))
    assert np.isnan(values.sel(measure="effect_size"))
    bounds = xr.Dataset({"estimate": values, "low": values - 0.1, "high": values + 0.1})
    assert interval(bounds, "effect_size") == "effect_size undefined"
    bounds["low"] = bounds["low"].where(bounds["measure"] != "auroc")
    assert interval(bounds, "auroc") == "auroc 0.78 [undefined]"
    curve = xr.DataArray([[0.5]], dims=("part", "layer"))
    whole = bounds.assign(n_report=3, selected_layer=0, curve=curve)
    assert any(
        "undefined: no value or interval of auroc, effect_size" in x for x in findings(whole)
    )


def test_a_measure_with_a_value_is_not_undefined_by_its_name():
    value = xr.DataArray([0.7], dims="measure", coords={"measure": ["auroc"]})
    named = xr.concat([value, value.assign_coords(measure=["share undefined"])], "measure")
    bounds = xr.Dataset({"estimate": named, "low": named - 0.1, "high": named + 0.1})
    curve = xr.DataArray([[0.5]], dims=("part", "layer"))
    whole = bounds.assign(n_report=3, selected_layer=0, curve=curve)
    assert findings(whole) == []
    hole = whole.assign(low=whole["low"].where(whole["measure"] == "auroc"))
    assert findings(hole) == ["undefined: no value or interval of share undefined"]
