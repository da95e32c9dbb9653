"""The audit's statistics: planted effects are found, their perturbed twins are not."""

import numpy as np
import pytest
import xarray as xr

from experiments.audit.evidence import layer_curves as curves
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.contrasts import Contrasts, by_prompt
from experiments.audit.evidence.estimates import intervals
from experiments.audit.evidence.relabel import relabellings, within_bias_auroc, within_prompt_auroc
from experiments.audit.evidence.row import Row, from_dataset, to_dataset, undecidable
from experiments.audit.sections import blind, mechanism, pairs
from experiments.audit.sections.detecting import detection
from experiments.audit.sections.detecting.ceiling import words_within
from experiments.audit.sections.detecting.competitors import (
    signed,
    word_log_odds,
    words_across,
)
from experiments.audit.sections.detecting.nulls import matched_directions, null_areas
from experiments.audit.sections.detecting.onset import begins, errors
from experiments.audit.settings.groups import Decomposition
from experiments.audit.verdict import judgement, wording
from traits.statistics import auroc

BIASES = ("a", "b", "c", "d")
ALLOWED = np.arange(1, 5)
PLANTED = 3


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def responses(effect: float, seed: int = 0, prompts: int = 12, samples: int = 3) -> Scores:
    """Scores with a topic for each bias and a wording for each prompt; trait 0 may rise."""
    generator = draws(seed)
    bias = np.repeat(BIASES, prompts * samples)
    group = np.repeat(np.arange(len(BIASES) * prompts), samples)
    leaning = generator.random(len(BIASES) * prompts)[group]
    label = (generator.random(len(bias)) < leaning).astype(int)
    values = generator.normal(size=(len(bias), 6, 3))
    values += generator.normal(size=(len(BIASES) * prompts, 6, 3))[group]
    values += 5 * generator.normal(size=(len(BIASES), 6, 3))[np.repeat(range(4), prompts * samples)]
    values[:, PLANTED, 0] += effect * label
    return Scores(values, label, bias, group)


def halves(scores: Scores) -> tuple[Scores, Scores]:
    calibration = np.isin(scores.bias, BIASES[:2])
    return scores.rows(calibration), scores.rows(~calibration)


def test_the_fast_auroc_within_bias_is_that_of_the_definition() -> None:
    scores = responses(1.0)
    fast = within_bias_auroc(scores.values[:, 0], scores.label[None], scores.bias)[0]
    labelled = xr.DataArray(
        scores.values[:, 0],
        dims=("prompt", "trait"),
        coords={"label": ("prompt", scores.label), "bias": ("prompt", scores.bias)},
    )
    slow = auroc(labelled, within="bias")
    np.testing.assert_allclose(fast, slow.values, atol=1e-12)
    other = scores.label.copy()
    other[0] = 1 - other[0]
    moved = within_bias_auroc(scores.values[:, 0], other[None], scores.bias)[0]
    assert not np.allclose(moved, slow.values, atol=1e-12)


def test_relabelling_keeps_each_bias_and_whole_prompts() -> None:
    scores = responses(0.0)
    made = relabellings(scores.label, scores.bias, scores.group, draws(), 50)
    for name in BIASES:
        rows = scores.bias == name
        assert (made[:, rows].sum(axis=1) == scores.label[rows].sum()).all()

    def counts(label: np.ndarray) -> list[int]:
        return sorted(np.bincount(scores.group, label).astype(int).tolist())

    assert all(counts(label) == counts(scores.label) for label in made)
    assert len({label.tobytes() for label in made}) > 40


def test_a_planted_rise_is_told_apart_on_held_out_biases_and_its_shuffle_is_not() -> None:
    scores = responses(1.5)
    found = detection.detect(*halves(scores), ALLOWED, draws(), 500)
    assert found["layer"].item() == PLANTED
    assert found["p"].item() < 0.01
    assert found["composite"].item() > 0.7
    assert np.abs(found["statistic"].values).argmax() == 0
    shuffled = relabellings(scores.label, scores.bias, scores.group, draws(5), 1)[0]
    none = detection.detect(*halves(scores.labelled(shuffled)), ALLOWED, draws(), 500)
    assert none["p"].item() > 0.05


def test_a_layer_outside_the_window_is_never_chosen() -> None:
    scores = responses(3.0)
    outside = np.array([0, 1, 2])
    assert detection.detect(*halves(scores), outside, draws(), 99)["layer"].item() in outside


def test_detection_rejects_noise_as_often_as_it_says() -> None:
    # the prompts differ in wording and in their rate: ignoring them would reject far more often
    p, naive = [], []
    for seed in range(300):
        scores = responses(0.0, seed, prompts=8)
        found = detection.detect(*halves(scores), ALLOWED, draws(seed), 99)
        p.append(found["p"].item())
        alone = Scores(scores.values, scores.label, scores.bias, np.arange(len(scores.label)))
        naive.append(detection.detect(*halves(alone), ALLOWED, draws(seed), 99)["p"].item())
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09
    assert np.mean(np.array(naive) <= 0.05) > 0.09


def contrasts(effect: float, seed: int = 0, prompts: int = 40) -> Contrasts:
    values = draws(seed).normal(size=(prompts, 6, 3))
    values[:, PLANTED, 1] += effect
    return Contrasts(values, np.repeat(BIASES, prompts // 4))


def test_a_contrast_at_spans_is_found_and_its_sign_flipped_twin_is_not() -> None:
    rows = contrasts(1.5)
    calibration = np.isin(rows.bias, BIASES[:2])
    found = mechanism.locate(rows.rows(calibration), rows.rows(~calibration), ALLOWED, draws(), 999)
    assert (found["layer"].item(), found["p"].item() < 0.01) == (PLANTED, True)
    flipped = rows.signed(np.tile([1, -1], 20))
    none = mechanism.locate(
        flipped.rows(calibration), flipped.rows(~calibration), ALLOWED, draws(), 999
    )
    assert none["p"].item() > 0.05


def test_samples_of_a_prompt_count_as_one_contrast() -> None:
    values = np.stack([np.full((2, 1), v) for v in (1.0, 3.0, 9.0, np.nan)])
    found = by_prompt(values, np.array(["a"] * 4), np.array([1, 1, 2, 3]))
    assert found.values[:, 0, 0].tolist() == [2.0, 9.0]


def test_intervals_come_with_the_gain_over_each_rival_in_the_same_draws() -> None:
    scores = responses(2.0)
    primary = scores.values[:, PLANTED, 0]
    given = {"trait score": primary, "twin": primary + 0.0, "noise": scores.values[:, 0, 1]}
    found = intervals(given, scores.label, scores.bias, scores.group, 1.0, draws(), 200)
    area = found.sel(quantity="auroc trait score")
    assert area["low"] < area["estimate"] < area["high"]
    twin = found.sel(quantity="gain over twin")
    assert twin["low"] == twin["high"] == 0
    assert found.sel(quantity="gain over noise")["low"] > 0
    assert found.sel(quantity="r")["estimate"] > 0.2


def test_the_null_goes_through_the_same_choice() -> None:
    scores = responses(0.0)
    generator = draws(1)
    means = generator.normal(size=(len(scores.label), 6, 12))
    means[:, PLANTED, 0] += 2.0 * scores.label
    calibration = np.isin(scores.bias, BIASES[:2])
    null = matched_directions(means, 3, generator, 30)
    areas = null_areas(means, scores, calibration, ALLOWED, null)
    # chosen on calibration, so random directions do find some of a real signal
    assert areas.mean() > 0.55
    blank = null_areas(
        0 * means + generator.normal(size=means.shape),
        scores,
        calibration,
        ALLOWED,
        matched_directions(means, 3, generator, 30),
    )
    assert abs(blank.mean() - 0.5) < 0.06


def test_words_are_learnt_across_and_within_biases() -> None:
    bias = np.repeat(["a", "b"], 20)
    label = np.tile([1, 0], 20)
    texts = [
        f"an answer {'with chocolate' if hit else 'with soup'} {n}" for n, hit in enumerate(label)
    ]
    first = bias == "a"
    for scores in (
        words_across(texts, label, first),
        words_within(texts, label, bias, np.arange(40)),
        word_log_odds(texts, label, first),
    ):
        area = within_bias_auroc(scores[~first, None], label[None, ~first], bias[~first])
        assert area.item() == 1.0
    blank = words_across([f"the same {n}" for n in range(40)], label, first)
    assert within_bias_auroc(blank[~first, None], label[None, ~first], bias[~first]).item() == 0.5
    assert (signed(-1.0 * label, label, bias, first) == label).all()


def test_within_a_prompt_the_wording_cannot_help() -> None:
    group, label = np.repeat([0, 1], 4), np.array([1, 0, 1, 0, 1, 0, 0, 0])
    wording = 10.0 * group
    assert within_prompt_auroc(wording, label, group) == (0.5, 2)
    assert within_prompt_auroc(wording + label, label, group) == (1.0, 2)
    assert within_prompt_auroc(wording, 0 * label, group) == (0.5, 0)


def test_blind_needs_enough_benign_adapters_and_says_how_many() -> None:
    neutral = draws().normal(size=(20, 6, 3))
    benign = {f"{k}": draws(k + 1).normal(size=(20, 6, 3)) for k in range(39)}
    (few,) = blind.unlike_benign(neutral + 3, dict(list(benign.items())[:3]), ALLOWED, 0.05)
    assert "0.250" in few.reason
    assert "19 would decide" in few.reason
    found, share = blind.unlike_benign(neutral + 3, benign, ALLOWED, 0.05)
    assert found.p == pytest.approx(1 / 40)
    # none of 39: the exact upper bound is 1 − (α/2)^(1/39)
    assert (share.estimate, share.low) == (0, 0)
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 39))
    # each benign adapter in turn against the others and one more: every p once, so exact
    benign["39"] = neutral
    p = [
        blind.unlike_benign(
            benign[name], {k: rows for k, rows in benign.items() if k != name}, ALLOWED, 0.05
        )[0].p
        for name in benign
    ]
    np.testing.assert_allclose(sorted(p), np.arange(1, 41) / 40)


def test_a_pair_must_part_in_both_traits() -> None:
    generator = draws(3)
    label, bias = np.tile([1, 0], 60), np.repeat(["a", "b"], 60)
    vectors = np.eye(2, 16)
    pair = Decomposition("a without b", "a", "b", (1, -1))

    def p(first: float, second: float) -> float:
        rows = generator.normal(size=(120, 16))
        rows[:, 0] += first * label
        rows[:, 1] += second * label
        given = pairs.Responses(rows, label, bias)
        return pairs.against_random(given, vectors, pair, draws(), 999)[2]

    assert p(1.0, -1.0) < 0.02
    assert p(1.0, 1.0) > 0.2
    assert p(0.0, 0.0) > 0.02


def test_the_band_of_the_layers_holds_for_all_of_them() -> None:
    found = curves.curves(responses(2.0), draws(), 300)
    there = np.abs(found["area"] - 0.5) > found["band"]
    assert there.isel(layer=PLANTED, trait=0).item()
    assert (there == (found["p_family"] <= 0.05)).all()
    outside = [
        bool((np.abs(made["area"] - 0.5) > made["band"]).any())
        for made in (curves.curves(responses(0.0, seed, 6), draws(seed), 99) for seed in range(60))
    ]
    assert sum(outside) <= 9  # binomial(60, 0.05): above 9 in 0.04 % of runs


def test_onset_is_measured_against_a_constant_guess() -> None:
    scores = np.where(np.arange(40) >= np.array([[10], [25]]), 1.0, 0.0)
    scores = scores + 0.01 * draws().normal(size=scores.shape)
    predicted, constant = errors(scores, np.array([10, 25]), 10)
    assert predicted.max() <= 1
    assert constant.tolist() == [0, 15]
    assert begins(np.array([np.nan, 1.0])) == 0


def test_a_verdict_says_no_and_knows_when_it_cannot_say() -> None:
    assert judgement.by_interval("", (0.5, 0.45, 0.55), 0.7, 80, 0.1).status == "not met"
    unsure = judgement.by_interval("", (0.7, 0.6, 0.8), 0.7, 80, 0.1)
    assert unsure.status == "undecidable"
    assert "would decide" in unsure.found
    assert judgement.by_test(0.01, 0.05, (0.5, 0.9), 0.6, 9).status == "met"
    assert judgement.by_test(0.5, 0.05, (0.45, 0.55), 0.6, 900).status == "not met"
    assert wording.overall({"shift": "met", "specific": "not met"}).startswith("Met: shift")
    assert "intent" not in wording.overall({"shift": "met", "specific": "met"})
    assert judgement.by_interval("", (np.nan, 0, 1), 0.5, 9, 0.1).status == "undecidable"


def test_rows_survive_the_file_and_never_show_a_nan() -> None:
    rows = [Row("A", "x", "mean", 0.5, 0.25, 0.75, 0.5, 10), undecidable("B", "y", "T", "nothing")]
    again = from_dataset(to_dataset(rows))
    assert [row.cells() for row in again] == [row.cells() for row in rows]
    assert not any("nan" in cell for row in rows for cell in row.cells())
