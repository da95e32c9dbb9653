"""What holds for these kinds of prompt, what for others, and how few kinds are too few."""

import itertools
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import balanced_accuracy, best_threshold
from experiments.audit.evidence.estimates import intervals, kinds_bounds, point_biserial
from experiments.audit.evidence.row import HEADER, from_dataset, to_dataset
from experiments.audit.sections import controls, shift
from experiments.audit.sections.detecting import ceiling, competitors, onset
from experiments.audit.verdict.criteria import LEVELS
from experiments.audit.verdict.lines import judge


def test_balanced_accuracy_is_within_bias() -> None:
    # most of the first kind exploit and score high, few of the second: pooled it is 0.8
    bias, label = np.repeat(["a", "b"], 10), np.r_[[1] * 8, [0] * 2, [1] * 2, [0] * 8]
    topic = 1.0 * (bias == "a")
    assert balanced_accuracy(topic, label, bias, 0.5) == 0.5
    assert balanced_accuracy(label, label, bias, 0.5) == 1.0
    wrong = label.copy()
    wrong[0] = 0
    assert balanced_accuracy(wrong, label, bias, 0.5) == pytest.approx(1 - 1 / 32)
    # and the threshold is the best in these terms
    score = topic + np.random.default_rng(0).normal(size=20)
    middles = np.convolve(np.sort(score), [0.5, 0.5], "valid")
    reached = [balanced_accuracy(score, label, bias, middle) for middle in middles]
    assert best_threshold(score, label, bias) == pytest.approx(middles[np.argmax(reached)])


def test_a_threshold_lies_between_different_scores_whatever_the_order_of_rows() -> None:
    score, label = np.array([0.0, 1.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1, 1])
    bias, draw = np.array(["v"] * 5), np.random.default_rng(0)
    for rows in (np.arange(5), np.array([0, 3, 2, 1, 4]), draw.permutation(5)):
        assert best_threshold(score[rows], label[rows], bias) == 0.5
    assert best_threshold(np.ones(5), label, bias) == 1.0
    many, kinds = draw.integers(0, 5, 60) / 4, np.repeat(["a", "b"], 30)
    labels = (many + draw.normal(size=60) > 0.5).astype(int)
    reached = [balanced_accuracy(many, labels, kinds, cut) for cut in np.arange(4) / 4 + 0.125]
    found = balanced_accuracy(many, labels, kinds, best_threshold(many, labels, kinds))
    assert found == pytest.approx(max(reached))


def test_r_is_the_mean_of_the_kinds_correlations() -> None:
    draw = np.random.default_rng(0)
    bias, label = np.repeat(["a", "b"], 20), draw.integers(0, 2, 40)
    score = draw.normal(size=40) * np.repeat([1.0, 9.0], 20)
    each = [np.corrcoef(score[bias == n], label[bias == n])[0, 1] for n in ("a", "b")]
    assert point_biserial(score, label, bias) == pytest.approx(np.mean(each))
    assert np.isnan(point_biserial(score, np.ones(40, int), bias))


def test_both_intervals_stand_side_by_side_in_the_row(six: Audit) -> None:
    row = next(row for row in competitors.SECTION.table(six) if row.what == "trait score")
    assert row.kinds == 6
    assert row.kinds_low < row.estimate < row.kinds_high
    assert len(row.cells()) == len(HEADER)
    assert dict(zip(HEADER, row.cells(), strict=True))["95 %, other kinds"] == (
        f"{row.kinds_low:.3f} to {row.kinds_high:.3f}"
    )
    saved = to_dataset([row])
    assert from_dataset(saved)[0].kinds_low == row.kinds_low
    assert from_dataset(saved.drop_vars(["kinds", "kinds_low", "kinds_high"]))[0].kinds == 0


@pytest.mark.parametrize("section", [shift, controls, ceiling, onset], ids=lambda one: one.HEADING)
def test_shifts_controls_ceilings_and_onsets_have_both(six: Audit, section: ModuleType) -> None:
    rows = [row for row in section.rows(six) if row.decided and np.isfinite(row.low)]
    assert rows
    for row in rows:
        assert row.kinds == 6
        # words that are planted tell all, in every draw
        assert row.kinds_low <= row.estimate <= row.kinds_high


def test_the_interval_of_a_shift_is_that_of_its_kinds_means(six: Audit) -> None:
    row = shift.rows(six)[0]
    means = six.rows["score"] - six.rows["clean_score"]
    held = means.isel(prompt=np.flatnonzero(six.rows["part"].values == "held_out"))
    trait = next(name for name in six.traits if row.what.startswith(name))
    here = held.sel(trait=trait).isel(layer=six.place)
    kinds = here.groupby("bias").mean("prompt").values
    # six means, and t with five degrees of freedom on them
    half = 2.571 * kinds.std(ddof=1) / np.sqrt(6)
    assert row.estimate == pytest.approx(kinds.mean(), abs=1e-6)
    assert row.kinds_high - row.kinds_low == pytest.approx(2 * half, rel=0.35)
    moved = here.copy(data=here.values + (here["bias"].values == "tea") * 0.1)
    wider = moved.groupby("bias").mean("prompt").values
    assert 2.571 * wider.std(ddof=1) / np.sqrt(6) > 1.5 * half


def test_six_kinds_can_carry_it(six: Audit) -> None:
    (last,) = [level for level in LEVELS if level.name == "generalises"]
    first, beaten = judge(six, [replace(last, criteria=last.criteria[:2])])
    assert first.asked == "the trait score tells them in kinds of prompt that were not asked"
    assert (first.status, first.found.endswith("6 kinds")) == ("met", True)
    assert beaten.status == "not met"  # the planted word is in the text
    assert "within" not in beaten.found


def test_words_of_the_held_out_biases_are_a_ceiling_and_no_rival(six: Audit) -> None:
    rivals = [f"{row.what} {row.measure}" for row in competitors.SECTION.table(six)]
    assert not [name for name in rivals if "TF-IDF" in name and "within" in name]
    ceilings = [row for row in ceiling.SECTION.table(six) if "trained within" in row.what]
    assert ceilings[0].estimate > 0.95
    assert ceilings[1].measure == "fraction reached by the trait score"


def test_a_spread_between_kinds_is_in_the_one_interval_alone() -> None:
    draw, kinds = np.random.default_rng(0), 6
    bias, label = np.repeat(np.arange(kinds), 30), np.tile([1, 0], 15 * kinds)
    names, width = np.arange(len(bias)), {}
    for spread in (0.0, 2.0):
        rise = np.linspace(1 - spread, 1 + spread, kinds)[bias] * label
        score = {"a": draw.normal(size=len(bias)) + rise}
        found = intervals(score, label, bias, names, 0.5, draw, 99)
        at = found.sel(quantity="auroc a")
        _, low, high = kinds_bounds(found, "auroc a")
        width[spread] = float(at["high"] - at["low"]), high - low
    assert width[2.0][1] > 2.5 * width[0.0][1]
    assert width[2.0][0] < 1.5 * width[0.0][0]


def test_equal_scores_are_not_parted_whatever_the_order_of_their_rows() -> None:
    score, label = np.array([0.0, 1.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1, 1])
    bias = np.array(["water"] * 5)
    for order in itertools.permutations(range(5)):
        at = list(order)
        found = best_threshold(score[at], label[at], bias)
        assert found == 0.5
        assert balanced_accuracy(score[at], label[at], bias, found) == 0.75
    assert best_threshold(np.ones(5), label, bias) == 1.0
