import numpy as np
import pytest
import xarray as xr

from traits.vectors.methods import mean_diff, whitened
from traits.vectors.nulls import (
    covariance_matched,
    principal_component,
    random_directions,
    shuffled_pairs,
)


def sides(seed=0, pairs=40, layers=2, dim=30, effect=0.0):
    positive, negative = np.random.default_rng(seed).normal(size=(2, pairs, layers, dim))
    positive[..., 0] += effect
    return positive, negative


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def test_shuffled_pairs_lose_a_planted_direction():
    positive, negative = sides(effect=20.0)
    null = shuffled_pairs(mean_diff, generator=np.random.default_rng(0))
    drawn = np.array([null(positive, negative)[0, 0] for _ in range(400)])
    assert abs(drawn.mean()) < 4 * 20 / np.sqrt(40 * 400)
    np.testing.assert_allclose(drawn.std(), 20 / np.sqrt(40), rtol=0.15)
    assert mean_diff(positive, negative)[0, 0] > 19


def test_shuffled_pairs_exchange_the_same_twins_at_every_layer():
    positive, negative = sides(layers=1)
    twice = [np.repeat(side, 2, axis=1) for side in (positive, negative)]
    found = shuffled_pairs(whitened, generator=np.random.default_rng(3))(*twice)
    np.testing.assert_allclose(found[0], found[1])
    other = shuffled_pairs(whitened, generator=np.random.default_rng(4))(*twice)
    assert not np.allclose(found, other)


def test_covariance_matched_directions_have_the_covariance_of_the_activations():
    scale = np.linspace(1, 20, 30)
    positive, negative = sides(pairs=200)
    null = covariance_matched(generator=np.random.default_rng(0))
    drawn = np.array([null(positive * scale, negative * scale)[0] for _ in range(3000)])
    rows = np.concatenate([positive, negative])[:, 0] * scale
    wanted = np.cov(rows.T)
    error = np.linalg.norm(np.cov(drawn.T) - wanted) / np.linalg.norm(wanted)
    assert error < 0.15
    isotropic = np.eye(30) * np.trace(wanted) / 30
    assert np.linalg.norm(isotropic - wanted) / np.linalg.norm(wanted) > 0.4


def test_the_covariance_can_be_that_of_a_difference_between_models():
    samples = np.random.default_rng(5).normal(size=(300, 2, 30))
    samples[..., 3] *= 100
    drawn = unit(covariance_matched(generator=np.random.default_rng(0), samples=samples)(*sides()))
    assert (abs(drawn[:, 3]) > 0.9).all()
    with pytest.raises(ValueError, match=r"\(2, 30\) and the pairs have \(3, 30\)"):
        covariance_matched(generator=np.random.default_rng(0), samples=samples)(*sides(layers=3))


def test_principal_components_are_those_of_the_activations_in_order():
    positive, negative = sides(pairs=60)
    positive[..., 7] *= 30
    negative[..., 7] *= 30
    rows = np.concatenate([positive, negative])[:, 1]
    _, _, right = np.linalg.svd(rows - rows.mean(axis=0))
    for number in (1, 2):
        found = unit(principal_component(number)(positive, negative))[1]
        assert abs(found @ right[number - 1]) > 1 - 1e-9
    assert abs(unit(principal_component(1)(positive, negative))[1, 7]) > 0.99
    with pytest.raises(ValueError, match="component 31 was asked for"):
        principal_component(31)(positive, negative)


def vector_like(layers=(3, 5), dim=30):
    values = np.random.default_rng(5).normal(size=(len(layers), dim)) * [[2.0], [7.0]]
    return xr.DataArray(values, {"layer": list(layers)}, dims=("layer", "dim"))


def traces_like(scale, layers=(2, 3, 5)):
    draw = np.random.default_rng(6)
    values = draw.normal(size=(40, 6, len(layers), len(scale))) * scale + 3
    values[7, 4:] = np.nan
    return xr.DataArray(values, {"layer": list(layers)}, dims=("prompt", "token", "layer", "dim"))


def test_random_directions_have_the_vectors_norm_and_the_covariance_of_the_traces():
    vector, scale = vector_like(), np.array([40.0, *np.linspace(1, 3, 29)])
    null = random_directions(vector, 3000, covariance=traces_like(scale), seed=1)
    assert null.dims == ("direction", "layer", "dim")
    assert null.direction.values[:2].tolist() == ["random/0", "random/1"]
    norms = np.linalg.norm(null, axis=-1)
    np.testing.assert_allclose(
        norms, np.tile(np.linalg.norm(vector, axis=-1), (3000, 1)), rtol=1e-5
    )
    # of a direction of norm 1, the massive dim has nearly all; isotropic it is one of thirty
    share = (null / norms[..., None])[..., 0] ** 2
    isotropic = random_directions(vector, 3000, seed=1)
    other = (isotropic / np.linalg.norm(isotropic, axis=-1)[..., None])[..., 0] ** 2
    assert float(share.mean()) > 0.6
    np.testing.assert_allclose(other.mean(), 1 / 30, rtol=0.1)
    rest = null[..., 1:].std("direction") / null[..., 1:].std("direction").mean("dim")
    np.testing.assert_allclose(rest, np.tile(scale[1:] / scale[1:].mean(), (2, 1)), rtol=0.2)


def test_random_directions_are_the_seeds_and_go_with_their_vector():
    vector, traces = vector_like(), traces_like(np.ones(30))
    one, again, other = (random_directions(vector, 2, covariance=traces, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one, again)
    assert not np.allclose(one, other)
    single = random_directions(vector.sel(layer=5), 2, covariance=traces, seed=1)
    assert single.dims == ("direction", "dim")
    assert int(single.layer) == 5
    np.testing.assert_allclose(single, one.sel(layer=5), rtol=1e-5)
    bank = xr.concat([vector.sel(layer=5).expand_dims(direction=["own"]), single], "direction")
    assert bank.direction.values.tolist() == ["own", "random/0", "random/1"]


def test_a_covariance_of_another_model_is_refused():
    vector, traces = vector_like(), traces_like(np.ones(30))
    with pytest.raises(ValueError, match=r"layers \[3, 5\] and the covariance \[2, 3\]"):
        random_directions(vector, 2, covariance=traces.sel(layer=[2, 3]))
    with pytest.raises(ValueError, match=r"of \(layer, dim\) \(2, 20\) and the vector \(2, 30\)"):
        random_directions(vector, 2, covariance=traces.isel(dim=slice(20)))
    with pytest.raises(ValueError, match=r"has 1 rows"):
        random_directions(vector, 2, covariance=traces.isel(prompt=[0], token=[0]))
    with pytest.raises(ValueError, match=r"dims \('trait', 'layer', 'dim'\)"):
        random_directions(vector.expand_dims(trait=["x/a"]), 2)
