from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from traits.probes.fitting.choosing import stacked
from traits.probes.fitting.token_values import token_values
from traits.probes.networks import mlp
from traits.probes.networks.mlp import fit_mlp


def exclusive_or(seed, count=300, dim=5):
    """Rows whose label is whether two dims have one sign: no direction tells it."""
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows, rows[:, 0] * rows[:, 1] > 0


def scores_of(rows, probe):
    """What `traits.score` makes of it."""
    return token_values(stacked([probe]), rows)[0][..., 0]


def fitted(rows, label, inverse_penalty=0.1, weight=None, seed=0):
    weight = np.ones(len(rows)) if weight is None else weight
    generator = np.random.default_rng(seed)
    return fit_mlp(rows, label, weight, [inverse_penalty], generator=generator)[0]


@pytest.mark.parametrize("few", [4096, 10])
def test_it_is_the_librarys_network_on_standardised_rows(few, monkeypatch):
    monkeypatch.setattr(mlp, "FEW", few)
    rows, label = exclusive_or(0)
    rows = rows * np.array([1, 40, 0.1, 1, 1], np.float32) + np.float32(5)
    standard = StandardScaler().fit_transform(rows.astype(float)).astype(np.float32)
    state = np.random.RandomState(int(np.random.default_rng(0).integers(2**31)))
    solver = "lbfgs" if few > 10 else "adam"
    # 200 rows of 300 a batch, and two batches a pass
    alpha = 10.0 if few > 10 else 10.0 * 200 / 300
    network = MLPClassifier((32,), alpha=alpha, random_state=state, solver=solver)
    for _ in range(1 if few > 10 else mlp.PASSES):
        (network.fit if few > 10 else partial(network.partial_fit, classes=[0, 1]))(standard, label)
    chance = network.predict_proba(standard)[:, 1]
    scores = scores_of(rows, fitted(rows, label))
    np.testing.assert_allclose(scores, np.log(chance / (1 - chance)), atol=1e-2)
    label[:10] = ~label[:10]
    other = scores_of(rows, fitted(rows, label))
    assert np.abs(other - np.log(chance / (1 - chance))).max() > 2e-2


def test_it_tells_what_no_direction_does():
    (rows, label), (other, truth) = exclusive_or(0), exclusive_or(1)
    linear = LogisticRegression().fit(rows, label).decision_function(other)
    assert roc_auc_score(truth, linear) < 0.6
    assert roc_auc_score(truth, scores_of(other, fitted(rows, label))) > 0.9


def test_a_fit_is_the_same_again_and_its_weights_count():
    rows, label = exclusive_or(0)
    probe, again = fitted(rows, label), fitted(rows, label)
    for name in probe:
        np.testing.assert_array_equal(probe[name], again[name])
        assert probe[name].dtype == np.float32
    weight = np.where(rows[:, 2] > 0, 1.0, 0.0)
    flipped = np.where(weight > 0, label, ~label)
    half, without = fitted(rows, flipped, weight=weight), fitted(rows, label)
    area = [roc_auc_score(label, scores_of(rows, one)) for one in (half, without)]
    assert min(area) > 0.85
    assert roc_auc_score(label, scores_of(rows, fitted(rows, flipped))) < 0.8


def test_bad_input_is_refused():
    rows, label = exclusive_or(0)
    with pytest.raises(ValueError, match="300 are positive and 0 negative"):
        fitted(rows, np.ones(300, bool))
    rows[1, 1] = np.nan
    with pytest.raises(ValueError, match="of which 1 have values that are not finite"):
        fitted(rows, label)
