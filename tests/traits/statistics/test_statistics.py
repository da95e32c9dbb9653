import numpy as np
import pytest
import xarray as xr
from scipy import stats

from traits.statistics import (
    auroc,
    benjamini_hochberg,
    effect_size,
    paired_auroc,
    paired_effect,
    rank_auroc,
    rank_differences,
)


def brute_force(scores, label):
    pairs = [(a, b) for a in scores[label == 1] for b in scores[label == 0]]
    return np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_count_over_all_pairs_with_ties(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, size=(3, 40)).astype(float)
    label = generator.integers(0, 2, size=40)
    found = auroc(
        xr.DataArray(scores, dims=("layer", "prompt")), xr.DataArray(label, dims="prompt")
    )
    np.testing.assert_allclose(found, [brute_force(row, label) for row in scores], rtol=1e-12)
    label[:2] = 1 - label[:2]
    assert not np.allclose(found, [brute_force(row, label) for row in scores])


def test_auroc_within_strata_does_not_read_what_separates_them():
    generator = np.random.default_rng(0)
    label = np.repeat([1, 0, 1, 0], [90, 10, 10, 90])
    bias = np.repeat(["vote", "rust"], 100)
    scores = generator.normal(size=200) + 5 * (bias == "vote")
    rows = {"label": ("prompt", label), "bias": ("prompt", bias)}
    array = xr.DataArray(scores, dims="prompt", coords=rows)
    halves = [brute_force(scores[bias == name], label[bias == name]) for name in ("vote", "rust")]
    assert auroc(array).item() > 0.85
    np.testing.assert_allclose(auroc(array, within="bias").item(), np.mean(halves))
    assert auroc(array, within="bias").attrs["strata"] == "2 of 2"


def test_strata_with_one_label_are_left_out_and_counted():
    rows = {"label": ("prompt", [1, 0, 1, 1]), "bias": ("prompt", ["a", "a", "b", "b"])}
    array = xr.DataArray([2.0, 1.0, 5.0, 6.0], dims="prompt", coords=rows)
    found = auroc(array, within="bias")
    assert (found.item(), found.attrs["strata"]) == (1.0, "1 of 2")
    apart = array.assign_coords(bias=("prompt", ["a", "b", "a", "a"]))
    with pytest.raises(ValueError, match="none of 2"):
        auroc(apart, within="bias")


def test_auroc_refuses_or_warns_with_numbers():
    scores = xr.DataArray([1.0, 2.0, 3.0, np.nan], dims="prompt")
    with pytest.raises(ValueError, match="found 4 and 0 of 4"):
        auroc(scores, xr.ones_like(scores))
    with pytest.raises(ValueError, match="1 of 4 scores are not finite"):
        auroc(scores, xr.DataArray([1, 0, 1, 0], dims="prompt"))
    with pytest.warns(UserWarning, match="constant along 'prompt' at 1 of 1"):
        auroc(xr.ones_like(scores), xr.DataArray([1, 0, 1, 0], dims="prompt"))


def test_the_paired_auroc_is_the_same_count():
    generator = np.random.default_rng(0)
    positive, negative = generator.integers(0, 9, size=(2, 25, 3)).astype(float)
    dims = ("pair", "layer")
    sides = xr.DataArray(positive, dims=dims), xr.DataArray(negative, dims=dims)
    label = np.repeat([1, 0], 25)
    wanted = [brute_force(np.r_[positive[:, k], negative[:, k]], label) for k in range(3)]
    np.testing.assert_allclose(paired_auroc(*sides), wanted, rtol=1e-12)
    np.testing.assert_allclose(rank_auroc(positive.T, negative.T), wanted, rtol=1e-12)
    np.testing.assert_allclose(paired_auroc(*sides[::-1]), 1 - np.array(wanted), rtol=1e-12)
    assert not np.allclose(paired_auroc(sides[0] + 1, sides[1]), wanted)


def test_exchanging_twins_changes_the_sign_of_their_rank_difference_only():
    generator = np.random.default_rng(1)
    positive, negative = (xr.DataArray(row, dims="pair") for row in generator.normal(size=(2, 12)))
    plain = rank_differences(positive, negative)
    swap = xr.DataArray(generator.integers(0, 2, 12).astype(bool), dims="pair")
    other = rank_differences(xr.where(swap, negative, positive), xr.where(swap, positive, negative))
    np.testing.assert_allclose(other, xr.where(swap, -plain, plain))
    swapped = paired_auroc(xr.where(swap, negative, positive), xr.where(swap, positive, negative))
    np.testing.assert_allclose(0.5 + other.mean(), swapped)


def test_q_values_hold_the_false_discovery_rate():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        effect = np.repeat([0.0, 3.5], [80, 20])
        p = stats.norm.sf(generator.normal(effect))
        called = benjamini_hochberg(xr.DataArray(p.reshape(4, 25), dims=("trait", "layer"))) <= 0.2
        shares.append((called.values.ravel() & (effect == 0)).sum() / max(called.sum(), 1))
    assert 0.12 < np.mean(shares) < 0.2
    with pytest.raises(ValueError, match="1 of 2 p-values"):
        benjamini_hochberg(xr.DataArray([0.5, np.nan], dims="trait"))


@pytest.mark.parametrize("unit", [1.0, 1e200, 1e-200])
def test_the_effect_of_a_plain_array_is_the_paired_effect(unit):
    values = np.random.default_rng(1).normal(0.4, 1, (2, 3, 30))
    plain = effect_size(values * unit)
    labelled = xr.DataArray(values * unit, dims=("layer", "trait", "pair"))
    np.testing.assert_array_equal(plain, paired_effect(labelled.transpose("pair", ...)))
    np.testing.assert_allclose(plain, stats.ttest_1samp(values, 0, -1).statistic / np.sqrt(30))
    values[1, 2, 3] += 0.1
    assert not np.allclose(plain, effect_size(values))
    values[0, 0] = 3.0
    assert np.isnan(effect_size(values)).sum() == 1


def test_the_paired_effect_is_the_t_statistic_over_root_n():
    values = np.random.default_rng(0).normal(0.4, 1, 30)
    found = paired_effect(xr.DataArray(values, dims="pair"))
    np.testing.assert_allclose(found, stats.ttest_1samp(values, 0).statistic / np.sqrt(30))


def test_twins_are_matched_by_their_labels():
    generator = np.random.default_rng(2)
    names = {"pair": [f"p{n}" for n in range(20)]}
    positive, negative = (
        xr.DataArray(row, names, "pair") for row in generator.normal(size=(2, 20))
    )
    shuffled = negative.isel(pair=generator.permutation(20))
    found = rank_differences(positive, shuffled)
    xr.testing.assert_identical(found, rank_differences(positive, negative))
    assert not np.allclose(found, rank_differences(positive, shuffled.drop_vars("pair")))
    with pytest.raises(ValueError, match=r"20 positive scores and 20.*2 labels.*'p0'|'z'"):
        paired_auroc(positive, negative.assign_coords(pair=["z", *names["pair"][1:]]))
    with pytest.raises(ValueError, match="20 positive scores and 19 negative ones"):
        paired_auroc(positive.drop_vars("pair"), negative.drop_vars("pair")[1:])
    twice = positive.assign_coords(pair=np.arange(20) // 2)
    with pytest.raises(ValueError, match="20 labels come in two orders and name 10 pairs"):
        rank_differences(twice, twice[::-1])


def test_lazy_scores_are_read():
    scores = np.random.default_rng(0).normal(size=(2, 12))
    plain = xr.DataArray(scores, {"label": ("prompt", [1, 0] * 6)}, ("layer", "prompt"))
    np.testing.assert_array_equal(auroc(plain.chunk(layer=1, prompt=5)), auroc(plain))
    sides = [plain.isel(prompt=rows).drop_vars("label") for rows in ([0, 2, 4], [1, 3, 5])]
    lazy = paired_auroc(*(side.chunk(prompt=2) for side in sides), dim="prompt")
    np.testing.assert_array_equal(lazy, paired_auroc(*sides, dim="prompt"))
