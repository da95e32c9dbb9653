import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from traits.statistics import cluster_bootstrap, over_kinds
from traits.statistics.permutation import against_null, max_statistic, sign_flip


def differences(seed, count=8, effect=0.0):
    return xr.DataArray(np.random.default_rng(seed).normal(effect, 1, count), dims="prompt")


def enumerated(values, sided):
    means = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=len(values))]
    return np.mean(sided(np.array(means)) >= sided(values.sum()) - 1e-12)


@pytest.mark.parametrize(
    ("alternative", "sided"),
    [("two-sided", abs), ("greater", lambda x: x), ("less", lambda x: -x)],
)
def test_p_is_that_of_all_sign_flips_where_those_are_few(alternative, sided):
    for seed in range(6):
        values = differences(seed, effect=0.5)
        found = sign_flip(
            values, generator=np.random.default_rng(0), group=None, alternative=alternative
        )
        assert found.attrs["exact"] == 1
        np.testing.assert_allclose(found["p"], enumerated(values.values, sided), rtol=1e-12)
        values[3] -= 3
        assert found["p"] != enumerated(values.values, sided)


@pytest.mark.parametrize("count", [4, 10])
def test_values_in_32_bits_have_no_smaller_p_than_the_two_flips_that_are_theirs(count):
    many = [differences(seed, count, effect=9.0) for seed in range(200)]
    values = xr.concat(many, "layer").astype(np.float32)
    found = sign_flip(values, generator=np.random.default_rng(0), group=None, family=("layer",))
    np.testing.assert_array_equal(found["p"], 2 / 2**count)
    assert found["p_family"].min() >= 2 / 2**count


def test_drawn_flips_agree_with_all_flips_and_count_the_observed_one():
    values = differences(1, effect=0.8)
    exact = sign_flip(values, generator=np.random.default_rng(0), group=None)["p"].item()
    drawn = sign_flip(values, generator=np.random.default_rng(0), group=None, repetitions=255)
    assert drawn.attrs == {"n": 8, "unit": "prompt", "draws": 255, "flips": 255, "exact": 0}
    assert abs(drawn["p"].item() - exact) < 4 * np.sqrt(exact * (1 - exact) / 255)
    far = sign_flip(
        differences(0, 40, 9.0), generator=np.random.default_rng(0), group=None, repetitions=99
    )
    assert far["p"].item() == 1 / 100


def test_p_agrees_with_scipy():
    values = differences(2, 12, 0.6)
    wanted = stats.permutation_test(
        (values.values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    found = sign_flip(values, generator=np.random.default_rng(0), group=None)
    np.testing.assert_allclose(found["p"], wanted.pvalue)
    t = stats.ttest_1samp(values.values, 0).statistic
    np.testing.assert_allclose(found["statistic"], t)
    np.testing.assert_allclose(found["estimate"], values.mean())


def test_groups_are_the_units_and_rows_are_not():
    generator = np.random.default_rng(0)
    prompt = generator.normal(size=(400, 20, 1)) + generator.normal(size=(400, 20, 30))
    group = {"group": ("prompt", np.repeat(np.arange(20), 30))}
    values = xr.DataArray(prompt.reshape(400, -1), dims=("run", "prompt"), coords=group)
    found = sign_flip(values, generator=generator, repetitions=399)
    rows = sign_flip(values, generator=generator, group=None, repetitions=399)
    rejected = [int((result["p"] <= 0.05).sum()) for result in (found, rows)]
    assert stats.binomtest(rejected[0], 400, 0.05).pvalue > 0.01
    assert rejected[1] > 200
    assert (found.attrs["n"], found.attrs["unit"]) == (20, "group")
    assert (rows.attrs["n"], rows.attrs["unit"]) == (600, "prompt")


def test_the_largest_of_a_family_is_judged_by_the_largest_of_the_null():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(400, 25, 4, 5))
    noise = xr.DataArray(noise, dims=("run", "prompt", "trait", "layer"))
    looked = ("trait", "layer")
    found = sign_flip(noise, generator=generator, group=None, family=looked, repetitions=399)
    family = int((found["p_family"] <= 0.05).any(looked).sum())
    single = int((found["p"] <= 0.05).any(looked).sum())
    assert stats.binomtest(family, 400, 0.05).pvalue > 0.01
    assert single > 200
    assert bool((found["p_family"] >= found["p"] - 1e-12).all())


def test_a_planted_effect_is_found_where_it_is():
    generator = np.random.default_rng(0)
    values = xr.DataArray(generator.normal(size=(40, 6)), dims=("prompt", "layer"))
    values[:, 4] += 1.0
    found = sign_flip(values, generator=generator, group=None, family=("layer",), repetitions=999)
    assert (found["p_family"] < 0.05).values.tolist() == [False] * 4 + [True, False]


def test_a_null_of_fewer_dims_serves_all_and_of_others_is_refused():
    observed = xr.DataArray([0.5, 2.5], dims="layer")
    null = xr.DataArray([0.0, 1.0, 2.0, 3.0], dims="draw")
    found = against_null(observed, null)
    assert found["p"].values.tolist() == [4 / 5, 2 / 5]
    assert found["null_quantile"].sel(level=0.5).item() == 1.5
    with pytest.raises(ValueError, match=r"'draw'.*\('layer',\); it has \('trait',\)"):
        against_null(observed, null.rename(draw="trait"))
    with pytest.raises(ValueError, match="without 'trait'"):
        max_statistic(observed, null, ["trait"])


def test_what_cannot_be_tested_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="1 of 8 paired differences are not finite"):
        sign_flip(differences(0).where(lambda x: x < x.max()), generator=generator, group=None)
    one = differences(0).assign_coords(group=("prompt", ["a"] * 8))
    with pytest.raises(ValueError, match="at least 2 groups, and there are 1"):
        sign_flip(one, generator=generator)
    with pytest.raises(ValueError, match="'larger' was asked"):
        sign_flip(differences(0), generator=generator, group=None, alternative="larger")
    assert sign_flip(0 * differences(0), generator=generator, group=None)["p"].item() == 1


@pytest.mark.parametrize("alike", [[0.7] * 6, [0.3] * 7, [1 / 3] * 10, 0.3 + 1e-7 * np.arange(8.0)])
def test_equal_differences_have_the_p_of_the_two_flips_that_are_theirs(alike):
    values = xr.DataArray(alike, dims="prompt")
    found = sign_flip(values, generator=np.random.default_rng(0), group=None)
    assert found["p"].item() == 2 / 2 ** len(alike)
    assert found["statistic"] > 1e6
    beside = xr.concat([values, differences(1, len(alike))], "trait")
    found = sign_flip(beside, generator=np.random.default_rng(0), group=None, family=("trait",))
    assert found["p_family"][0] == 2 / 2 ** len(alike)
    assert found["p_family"][1] >= found["p"][1]


def test_no_p_of_nearly_equal_differences_is_below_what_their_flips_allow():
    generator = np.random.default_rng(0)
    for count in range(3, 11):
        for noise in (0, 1e-9, 1e-7, 1e-5):
            values = generator.random() * (1 + noise * generator.normal(size=count))
            found = sign_flip(xr.DataArray(values, dims="prompt"), generator=generator, group=None)
            assert found["p"].item() == 2 / 2**count


@pytest.mark.parametrize("missing", [np.nan, None])
def test_rows_without_a_group_are_refused(missing):
    groups = np.array(["a", "a", "b", "b", missing, missing, "c", "c"], object)
    rows = differences(0).assign_coords(group=("prompt", groups))
    with pytest.raises(ValueError, match="2 of 8 rows have no 'group'"):
        sign_flip(rows, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 of 8 rows have no 'group'"):
        cluster_bootstrap(rows, "mean", generator=np.random.default_rng(0), repetitions=9)
    with pytest.raises(ValueError, match="2 of 8 rows have no 'group'"):
        over_kinds(rows, "mean", kind="group", group=None, generator=np.random.default_rng(0))
