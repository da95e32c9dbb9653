import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tracekit.transcripts.pooling import Pooling
from tracekit.transcripts.pooling import pooled as array_pooled
from traits.probes.fitting.choosing import stacked
from traits.probes.fitting.token_values import token_values
from traits.probes.networks.attention import (
    fit_attention,
    penalised_loss,
    pooled,
    token_places,
)


def responses(seed=0, count=40, tokens=7, dim=6, effect=1.0):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, tokens, dim)).astype(np.float32)
    label = np.arange(count) % 2 == 1
    values[label, :, 0] += effect
    return values, label


def attention_scores(values, probe):
    """What `traits.score` makes of it."""
    scores, logits = (one[..., 0] for one in token_values(stacked([probe]), values))
    return array_pooled(scores, Pooling("attention"), logits)


def flat(values):
    exists = np.isfinite(values).all(-1)
    return values[exists], np.nonzero(exists)[0]


def fitted(values, label, inverse_penalty=0.1, weight=None):
    weight = np.ones(len(label)) if weight is None else weight
    return fit_attention(*flat(values), label, weight, [inverse_penalty])[0]


def loss_of(probe, values, label, inverse_penalty, weight=1.0):
    """The objective in numpy, of a probe in raw units."""
    scale = flat(values)[0].std(axis=0, dtype=np.float64)
    scores = attention_scores(values, probe)
    loss = np.logaddexp(0, np.where(label, -scores, scores))
    squares = sum(np.sum((probe[name] * scale) ** 2) for name in ("query", "weight"))
    return inverse_penalty * np.sum(weight * loss) + squares / 2


def test_the_gradient_of_the_objective_is_that_of_finite_differences():
    values, label = responses(count=6, tokens=4, dim=3)
    values[2, 1:] = np.nan
    rows, response = flat(values)
    tokens, places = torch.from_numpy(rows).double(), torch.from_numpy(token_places(response, 6))
    sign = torch.from_numpy(2.0 * label - 1)

    def objective(directions, offset):
        scores = pooled(tokens, places, directions, offset)
        return penalised_loss(scores, sign, torch.linspace(0.1, 2, 6), directions)

    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    point = start.requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(objective, point)
    # the twin: another objective than the one differentiated
    gradient = torch.autograd.grad(objective(*point), point)[0]
    step = torch.zeros_like(start)
    step[1, 0] = 1e-6
    with torch.no_grad():
        slope = (objective(start + step, point[1]) - objective(start - step, point[1])) / 2e-6
        other = (
            pooled(tokens, places, start + step, point[1]).sum()
            - pooled(tokens, places, start - step, point[1]).sum()
        ) / 2e-6
    assert slope.item() == pytest.approx(gradient[1, 0].item(), abs=1e-7)
    assert other.item() != pytest.approx(gradient[1, 0].item(), abs=1e-3)


def test_scores_in_numpy_are_those_of_torch():
    values, _ = responses(tokens=9)
    values = values.astype(float)
    values[3, 5:] = values[7, :2] = np.nan
    draw = np.random.default_rng(1)
    probe = {"query": draw.normal(size=6), "weight": draw.normal(size=6), "offset": np.array(0.5)}
    rows, response = flat(values)
    places = torch.from_numpy(token_places(response, len(values)))
    directions = torch.from_numpy(np.stack([probe["query"], probe["weight"]], axis=1))
    scores = pooled(torch.from_numpy(rows).double(), places, directions, torch.tensor(0.5)).numpy()
    np.testing.assert_allclose(attention_scores(values, probe), scores, rtol=1e-10)
    values[3, 0, 0] += 0.01
    assert np.abs(attention_scores(values, probe) - scores)[3] > 1e-5


def test_the_fit_is_a_minimum_of_the_objective_in_raw_units():
    values, label = responses()
    values = values * np.array([1, 5, 0.1, 30, 1, 1], np.float32) + np.float32(3)
    probe = fitted(values, label)
    least = loss_of(probe, values, label, 0.1)
    for name, size in (("query", 1e-2), ("weight", 1e-2), ("offset", 1e-2)):
        for place in np.ndindex(probe[name].shape):
            for sign in (1, -1):
                moved = {key: array.astype(float) for key, array in probe.items()}
                scale = values[..., place[0]].std() if place else 1.0
                moved[name][place] += sign * size / scale
                assert loss_of(moved, values, label, 0.1) > least


def test_units_of_the_dims_and_the_order_of_tokens_do_not_matter():
    values, label = responses()
    probe = fitted(values, label)
    scale = np.array([1, 5, 0.1, 30, 1, 1], np.float32)
    other = fitted(values[:, ::-1] * scale + 7, label)
    own, elsewhere = attention_scores(values, probe), attention_scores(values * scale + 7, other)
    np.testing.assert_allclose(own, elsewhere, atol=2e-4)
    assert not np.allclose(own, attention_scores(values * scale + 8, other), atol=2e-4)


def test_a_strong_penalty_leaves_the_logistic_regression_of_the_means():
    values, label = responses(effect=0.3)
    probe = fitted(values, label, 1e-3)
    # standardised over tokens, as the probe is
    scaler = StandardScaler().fit(flat(values)[0])
    reference = LogisticRegression(C=1e-3, tol=1e-10).fit(scaler.transform(values.mean(1)), label)
    scores = reference.decision_function(scaler.transform(values.mean(1)))
    assert np.linalg.norm(probe["query"]) < 1e-3
    np.testing.assert_allclose(attention_scores(values, probe), scores, atol=1e-5)
    weaker = attention_scores(values, fitted(values, label, 2e-3))
    assert np.abs(weaker - scores).max() > 1e-4


def test_a_weight_of_two_is_the_response_twice():
    values, label = responses(count=20)
    weight = np.ones(20)
    weight[:4] = 2
    twice = np.concatenate([values, values[:4]]), np.concatenate([label, label[:4]])
    # both standardised alike: only the loss is weighted
    scale = [flat(part)[0].std(0) for part in (values, twice[0])]
    probe, other = fitted(values, label, weight=weight), fitted(*twice)
    assert loss_of(probe, values, label, 0.1, weight) == pytest.approx(
        loss_of(other, values, label, 0.1, weight), rel=2e-3
    ), scale
    unweighted = fitted(values, label)
    assert loss_of(unweighted, values, label, 0.1, weight) > loss_of(
        probe, values, label, 0.1, weight
    )


def test_a_fit_is_the_same_again_and_each_penalty_its_own():
    values, label = responses()
    rows, response = flat(values)
    two = fit_attention(rows, response, label, np.ones(40), [1e-2, 1.0])
    again = fitted(values, label, 1.0)
    for name in again:
        np.testing.assert_array_equal(two[1][name], again[name])
        assert again[name].dtype == np.float32
    assert not np.allclose(two[0]["query"], again["query"])


def test_a_trend_that_every_token_has_is_found_too():
    values, label = responses()
    other, truth = responses(seed=5)
    assert roc_auc_score(truth, attention_scores(other, fitted(values, label))) > 0.9


def test_a_response_without_tokens_has_no_score():
    values, label = responses()
    probe = fitted(values, label)
    values[0] = np.nan
    scores = attention_scores(values, probe)
    assert np.isnan(scores[0])
    assert np.isfinite(scores[1:]).all()


def test_bad_input_is_refused():
    values, label = responses()
    with pytest.raises(ValueError, match="0 are positive and 280 negative"):
        fitted(values, np.zeros(40, bool))
    with pytest.raises(ValueError, match="All 280 rows are the same"):
        fitted(np.ones_like(values), label)
    rows, response = flat(values)
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="of which 1 have values that are not finite"):
        fit_attention(rows, response, label, np.ones(40), [0.1])
    both = np.concatenate([label, label[:2]])
    with pytest.raises(ValueError, match="2 of 42 responses have no tokens"):
        fit_attention(*flat(values), both, np.ones(42), [0.1])
