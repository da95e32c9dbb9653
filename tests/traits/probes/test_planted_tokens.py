"""A signal at one token of forty: what the mean misses, attention and the largest token find."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from traits.probes.attention import attention_scores, fit_attention
from traits.probes.mlp import fit_mlp, mlp_scores

COUNT, TOKENS, DIM = 240, 40, 32


def planted(strength, seed):
    """Responses of noise; in those labelled 1 one token, anywhere, is moved along one direction."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(COUNT, TOKENS, DIM)).astype(np.float32)
    label = np.arange(COUNT) % 2 == 1
    direction = np.repeat([1, -1], DIM // 2) / np.sqrt(DIM)
    places = draw.integers(TOKENS, size=COUNT)
    values[label, places[label]] += (strength * direction).astype(np.float32)
    return values, label


def areas(strength, seed=0):
    """AUROC on other responses, of each probe at one penalty."""
    values, label = planted(strength, 2 * seed)
    other, truth = planted(strength, 2 * seed + 1)
    rows, response = values.reshape(-1, DIM), np.repeat(np.arange(COUNT), TOKENS)
    scaler = StandardScaler().fit(values.mean(1))
    mean = LogisticRegression(C=0.01).fit(scaler.transform(values.mean(1)), label)
    attention = fit_attention(rows, response, label, np.ones(COUNT), [0.1])[0]
    generator = np.random.default_rng(0)
    tokens = fit_mlp(rows, label[response], np.ones(len(rows)), [0.1], generator=generator)[0]
    scores = {
        "mean": mean.decision_function(scaler.transform(other.mean(1))),
        "attention": attention_scores(other, attention),
        "mlp max": mlp_scores(other, tokens).max(axis=1),
    }
    return {name: roc_auc_score(truth, score) for name, score in scores.items()}


@pytest.fixture(scope="module")
def curve():
    """The mean AUROC over three draws, by strength."""
    draws = {strength: [areas(strength, seed) for seed in range(3)] for strength in (0, 4, 6, 16)}
    return {
        strength: {name: np.mean([one[name] for one in each]) for name in each[0]}
        for strength, each in draws.items()
    }


def test_a_signal_at_one_token_is_found_where_the_mean_misses_it(curve):
    assert curve[4]["attention"] > 0.9
    assert curve[4]["mlp max"] > 0.72
    assert curve[4]["mean"] < 0.65
    assert curve[6]["attention"] > 0.99
    assert curve[6]["mlp max"] > 0.95
    assert curve[6]["mean"] < 0.78


def test_power_grows_with_the_signal_and_the_mean_comes_last(curve):
    for name in ("mean", "attention", "mlp max"):
        powers = [by_name[name] for by_name in curve.values()]
        assert all(np.diff(powers) > -0.01), (name, powers)
    assert all(curve[s]["attention"] > curve[s]["mlp max"] > curve[s]["mean"] for s in (4, 6))
    # strong enough, it moves the mean too: it was no harder task for it than that
    assert curve[16]["mean"] > 0.93


def test_without_a_signal_nothing_is_found(curve):
    # the deviation of one AUROC of 120 against 120 is 0.037
    assert all(abs(area - 0.5) < 3 * 0.037 / np.sqrt(3) for area in curve[0].values())
