"""A signal at one token of forty: what the mean misses, attention and the largest token find."""

import sys

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

import traits
from tracekit.transcripts.pooling import Pooling, pooled
from traits.probes.fitting.token_values import token_values
from traits.probes.record import read

COUNT, TOKENS, DIM = 300, 40, 32
PROBES = {
    "mean": {"method": "logistic", "pooling": "mean"},
    "attention": {"method": "attention"},
    "mlp max": {"method": "mlp", "pooling": "max"},
}


def planted(strength, seed):
    """Responses of noise; in those labelled 1 one token, anywhere, is moved along one direction."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(COUNT, TOKENS, 1, DIM)).astype(np.float32)
    label = np.arange(COUNT) % 2
    direction = np.repeat([1, -1], DIM // 2) / np.sqrt(DIM)
    places = draw.integers(TOKENS, size=COUNT)
    moved = np.flatnonzero(label)
    values[moved, places[moved], 0] += (strength * direction).astype(np.float32)
    rows = {"prompt": [f"a/{n}" for n in range(COUNT)], "label": ("prompt", label)}
    dims = ("prompt", "token", "layer", "dim")
    return xr.DataArray(values, {**rows, "token": np.arange(TOKENS), "layer": [3]}, dims)


def areas(strength, seed=0):
    """AUROC on other responses, of each probe with its penalty chosen on its own part."""
    traces, other = planted(strength, 2 * seed), planted(strength, 2 * seed + 1)
    powers = {}
    for name, settings in PROBES.items():
        generator = np.random.default_rng(seed)
        probe = read(traits.fit(traces, "label", groups=None, generator=generator, **settings))
        scores, logits = token_values(probe.parameters, other.values[:, :, 0])
        logits = None if logits is None else logits[..., 0]
        score = pooled(scores[..., 0], Pooling.read(probe.pooling), logits)
        powers[name] = roc_auc_score(other["label"], score)
    return powers


@pytest.fixture(scope="module")
def curve():
    """The mean AUROC over two draws, by strength."""
    draws = {strength: [areas(strength, seed) for seed in range(2)] for strength in (0, 4, 6)}
    return {
        strength: {name: np.mean([one[name] for one in each]) for name in PROBES}
        for strength, each in draws.items()
    }


def test_a_signal_at_one_token_is_found_where_the_mean_misses_it(curve):
    assert curve[4]["attention"] > 0.9
    assert curve[4]["mlp max"] > 0.7
    assert curve[4]["mean"] < 0.65
    assert curve[6]["attention"] > 0.98
    assert curve[6]["mlp max"] > 0.95
    assert curve[6]["mean"] < 0.75


def test_power_grows_with_the_signal_and_the_mean_comes_last(curve):
    for name in PROBES:
        powers = [by_name[name] for by_name in curve.values()]
        assert all(np.diff(powers) > 0), (name, powers)
    assert all(curve[s]["attention"] >= curve[s]["mlp max"] - 0.01 for s in (4, 6))
    assert all(curve[s]["mlp max"] > curve[s]["mean"] + 0.1 for s in (4, 6))


def test_without_a_signal_nothing_is_found(curve):
    # the deviation of one AUROC of 150 against 150 is 0.033
    assert all(abs(area - 0.5) < 3 * 0.033 / np.sqrt(2) for area in curve[0].values())


def test_strong_enough_the_mean_has_it_too(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PROBES", {"mean": PROBES["mean"]})
    assert areas(24)["mean"] > 0.93
