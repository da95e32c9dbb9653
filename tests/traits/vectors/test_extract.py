import numpy as np
import pytest
import xarray as xr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support.oracles.planted import contrast_traces
from traits import pairs
from traits.vectors.extraction import extract, unit
from traits.vectors.methods import METHODS, first_component, mean_diff, probe, whitened
from traits.vectors.selection import fit_candidates


def cosine(one, other):
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def sides(seed, pairs=30, layers=2, dim=120):
    generator = np.random.default_rng(seed)
    positive, negative = generator.normal(size=(2, pairs, layers, dim))
    positive[..., :4] += 0.8
    return positive * np.linspace(0.1, 9, dim), negative * np.linspace(0.1, 9, dim)


@pytest.mark.parametrize("dim", [12, 120])
def test_the_probe_is_scikit_learns_plain_fit(dim):
    positive, negative = sides(0, dim=dim)
    label = np.repeat([1, 0], 30)
    plain = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=5000))
    for layer in range(2):
        data = np.concatenate([positive, negative])[:, layer]
        weight = plain.fit(data, label)[1].coef_[0] / plain[0].scale_
        assert cosine(probe(positive, negative)[layer], weight) > 1 - 1e-7
        data[0, 0] += 5
        other = plain.fit(data, label)[1].coef_[0] / plain[0].scale_
        assert cosine(probe(positive, negative)[layer], other) < 1 - 1e-7


@pytest.mark.parametrize(("dim", "pairs"), [(120, 30), (12, 80)])
def test_the_whitened_difference_is_scikit_learns_shrunken_discriminant(dim, pairs):
    positive, negative = sides(0, dim=dim, pairs=pairs)
    plain = LinearDiscriminantAnalysis("lsqr", shrinkage="auto")
    label = np.repeat([1, 0], pairs)
    for layer in range(2):
        data = np.concatenate([positive, negative])[:, layer]
        found = whitened(positive, negative)[layer]
        np.testing.assert_allclose(found, plain.fit(data, label).coef_[0], rtol=1e-6, atol=1e-9)
        data[0, 0] += 5
        assert not np.allclose(found, plain.fit(data, label).coef_[0], rtol=1e-6, atol=1e-9)


def test_the_first_component_is_the_leading_singular_vector_of_the_differences():
    positive, negative = sides(3)
    for layer in range(2):
        _, _, right = np.linalg.svd((positive - negative)[:, layer])
        found = first_component(positive, negative)[layer]
        assert abs(cosine(found, right[0])) > 1 - 1e-10
        assert abs(cosine(found, right[1])) < 1e-6
        assert found @ mean_diff(positive, negative)[layer] > 0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_a_planted_direction_with_its_sign(name):
    traces = contrast_traces(np.random.default_rng(0), pairs=200, effect=6.0)
    vector = extract(traces, name).sel(layer=2)
    assert float(vector[0]) > 0.9
    flipped = extract(traces.assign_coords(label=1 - traces["label"]), name).sel(layer=2)
    assert float(flipped[0]) < -0.9


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_blind_to_the_scale_and_origin_of_the_residuals(name):
    positive, negative = sides(1)
    shift = np.random.default_rng(5).normal(size=positive.shape[1:])
    plain = METHODS[name](positive, negative)
    moved = METHODS[name](50 * (positive + shift), 50 * (negative + shift))
    assert min(cosine(plain[k], moved[k]) for k in range(2)) > 1 - 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_layers_do_not_touch_each_other(name):
    positive, negative = sides(2)
    alone = METHODS[name](positive[:, :1], negative[:, :1])
    np.testing.assert_allclose(METHODS[name](positive, negative)[:1], alone, rtol=1e-6)


def test_the_result_is_labelled_and_of_norm_one():
    traces = contrast_traces(np.random.default_rng(0)).assign_attrs(provenance='{"model": "m"}')
    vector = extract(traces, "probe")
    assert vector.dims == ("layer", "dim")
    assert vector.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vector, axis=-1), 1, rtol=1e-6)
    assert (vector["trait"].item(), vector["extraction"].item()) == ("alignment/planted", "probe")
    assert '"model": "m"' in vector.attrs["provenance"]
    assert '"pairs": 60' in vector.attrs["provenance"]


def test_any_function_of_the_alias_is_a_method():
    def median(positive, negative):
        return np.median(positive - negative, axis=0)

    vector = extract(contrast_traces(np.random.default_rng(0), effect=9.0), median)
    assert vector["extraction"].item() == "median"
    assert float(vector.sel(layer=2)[0]) > 0.9


@pytest.mark.parametrize(
    "shaped", [np.transpose, np.ravel, lambda v: v[0], lambda v: v[:, :, None]]
)
def test_a_methods_values_of_another_shape_are_refused(shaped):
    def other(positive, negative):
        return shaped((positive - negative).mean(0))

    traces = contrast_traces(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"a vector a layer is due: \(3, \d+\), \(layer, dim\)"):
        extract(traces, other)
    positive, negative = (side.values[:, None] for side in pairs(traces))
    assert fit_candidates([mean_diff], (positive, negative)).shape == (1, *positive.shape[1:])
    with pytest.raises(ValueError, match="a vector a layer is due"):
        fit_candidates([other], (positive, negative))


def test_what_cannot_be_extracted_is_refused():
    traces = contrast_traces(np.random.default_rng(0))
    with pytest.raises(
        ValueError, match="'means' was asked for; there are mean_diff, probe, whitened"
    ):
        extract(traces, "means")
    other = contrast_traces(np.random.default_rng(0), trait="alignment/other")
    with pytest.raises(ValueError, match="2 contrast sets"):
        extract(xr.concat([traces, other], "prompt"))
    same = traces.copy()
    same[:, 1] = 1.0
    with pytest.raises(ValueError, match=r"the same at 1 of 3 places .*\[\[1\]\]"):
        extract(same)


def test_the_mean_difference_of_float32_is_summed_in_float64():
    positive = np.full((1, 1, 1), 1.0, np.float32).repeat(5000, axis=0) + 30000
    assert mean_diff(positive, positive - 1).item() == 1.0


@pytest.mark.parametrize("effect", [0.8, 4.0])
def test_recovery_is_as_good_as_theory_allows(effect):
    pairs, dim = 120, 576
    theory = effect / np.sqrt(effect**2 + 2 * dim / pairs)
    found = [
        extract(
            contrast_traces(np.random.default_rng(seed), pairs, 2, dim, effect=effect), "mean_diff"
        )
        .sel(layer=1, dim=0)
        .item()
        for seed in range(12)
    ]
    assert abs(np.mean(found) - theory) < 0.03
    assert abs(np.mean(found) - effect / np.sqrt(effect**2 + dim / pairs)) > 0.03  # another theory


def test_a_vector_of_zeros_has_no_direction_unless_it_may_stay_one():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="no length at 1 of 2 places"):
        unit(vectors)
    assert unit(vectors, zeros=True).tolist() == [[0.6, 0.8], [0.0, 0.0]]
    with pytest.raises(ValueError, match="not finite"):
        unit(np.array([[np.nan, 1.0]]), zeros=True)


@pytest.mark.parametrize(
    ("name", "trait"),
    [
        ("What is {0}/{1}? or https://a.b/{0}/x", ""),
        ("mine/{0}/statement", "mine"),
        ("Is {0} it?", ""),
    ],
)
def test_groups_of_ones_own_may_hold_a_slash(name, trait):
    traces = contrast_traces(np.random.default_rng(0))
    number = [group.rpartition("/")[2] for group in traces["group"].values.tolist()]
    own = [name.format(n, int(n) + 1) for n in number]
    found = extract(traces.assign_coords(group=("prompt", own)))
    assert found["trait"].item() == trait
    np.testing.assert_array_equal(found, extract(traces))


def test_pairs_of_several_sets_are_refused_also_where_there_is_one_of_each():
    traces = contrast_traces(np.random.default_rng(0), pairs=6)
    number = [group.rpartition("/")[2] for group in traces["group"].values.tolist()]
    mixed = traces.assign_coords(group=("prompt", [f"alignment/a{n}/0" for n in number]))
    with pytest.raises(ValueError, match="6 contrast sets"):
        extract(mixed)
