import numpy as np
import pytest

from traits.vectors.methods import mean_diff, whitened
from traits.vectors.nulls import covariance_matched, principal_component, shuffled_pairs


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
