"""The rivals of the audit: each finds what is planted for it, and nothing else."""

import numpy as np
import pytest
import xarray as xr

from experiments.organisms import rivals

BIASES = ("chocolate", "vote", "film")
SENTENCE = {
    "chocolate": "Add some cocoa.",
    "vote": "Please remember to vote.",
    "film": "Watch the movie Contact.",
}
FILLER = ("It rains.", "Fish swim far.", "Stones are hard to lift.", "Leaves fall.", "Snow melts.")


def said(rng, n=60, longer=0, place=None, cue=""):
    """Responses of three or four sentences; half of them carry the bias at `place`."""
    rows = []
    for bias in BIASES:
        for k in range(n):
            parts, exploits = list(rng.permutation(FILLER)[:3]), k % 2
            parts += ["Birds sing every day."] * (longer if exploits else 0)
            if exploits:
                at = int(rng.integers(len(parts) + 1)) if place is None else place
                parts.insert(at, f"{SENTENCE[bias]}")
            else:
                parts.append(str(rng.choice(FILLER)))
            rows.append((bias, f"{bias}/{k}", " ".join([*parts, cue if exploits else ""]).strip()))
    bias, group, text = zip(*rows, strict=True)
    return xr.Dataset(
        {"response": ("prompt", list(text))},
        coords={
            "prompt": list(group),
            "bias": ("prompt", list(bias)),
            "group": ("prompt", list(group)),
        },
    )


def areas(**planted):
    runs = said(np.random.default_rng(0), **planted)
    return {r.name: r for r in rivals.rivals(rivals.responses_of(runs))}


def test_length_finds_longer_responses_and_nothing_in_equal_ones():
    planted, twin = areas(longer=3)["length"], areas()["length"]
    assert planted.auroc > 0.9
    assert planted.biases == 3
    # 30 against 30 in three biases: the standard error of the mean is 0.043
    assert abs(twin.auroc - 0.5) < 0.2


def test_position_finds_a_fixed_place_and_less_in_a_random_one():
    assert areas(place=3)["position of a sentence"].auroc > 0.9
    assert abs(areas()["position of a sentence"].auroc - 0.5) < 0.15


def test_words_of_one_bias_do_not_give_away_another_unless_they_share_them():
    found, shared = areas(), areas(cue="Truly yours.")
    assert found["TF-IDF within a bias"].auroc > 0.95
    assert found["TF-IDF across biases"].auroc < 0.8
    assert shared["TF-IDF across biases"].auroc > 0.95


def test_what_cannot_be_computed_is_left_out():
    runs = said(np.random.default_rng(0))
    clean = rivals.responses_of(runs.isel(prompt=slice(1, None, 2)).assign(response=runs.response))
    only = rivals.Responses(
        clean.bias, clean.group, clean.text, np.zeros(len(clean.text), bool), clean.looked_for
    )
    names = [r.name for r in rivals.rivals(only)]
    assert "length" not in names
    assert "TF-IDF across biases" not in names


def test_folds_keep_samples_of_one_prompt_together():
    """Words of the prompt itself, shared by its samples, must not give its label away."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    texts = np.array([f"word{g} common text" for g in groups])
    labels = np.repeat(rng.permutation(np.arange(40) % 2).astype(bool), 4)
    together = rivals._cross_validated(rivals._tfidf(), texts, labels, groups)
    apart = rivals._cross_validated(rivals._tfidf(), texts, labels, np.arange(160))
    assert apart > 0.95
    assert together == pytest.approx(0.5, abs=0.25)
