"""Exploiting spans are held against sentences that are alike, or against none."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.audit.evidence.spans import (
    DECILES,
    MATCHES,
    NATS,
    OWN,
    SAME,
    Answers,
    matches,
    quality,
    sentence_ends,
    span_means,
)

TOKENS, SENTENCE = 60, 4


def answers(**changed: np.ndarray) -> Answers:
    """Three answers of fifteen sentences: the first exploits in its sixth, the last is bare."""
    exploit = np.zeros((3, TOKENS), bool)
    exploit[0, 20:24] = True
    ends = np.tile(np.arange(TOKENS) % SENTENCE == SENTENCE - 1, (3, 1))
    logprob = np.full((3, TOKENS), -1.0)
    logprob[0, 20:24] = -6.0
    there, bare = np.ones_like(exploit), np.array([False, False, True])
    part = np.array(["held_out", "held_out", "neutral"])
    return replace(Answers(exploit, there, ends, logprob, bare, part), **changed)


def likely(row: int, start: int, nats: float) -> np.ndarray:
    logprob = answers().logprob.copy()
    logprob[row, start : start + SENTENCE] = nats
    return logprob


def test_a_span_without_a_sentence_that_is_alike_is_left_out() -> None:
    # the former choice took the nearest stretch of the answer, 5 nats a token away
    assert [matches(answers(), where) for where in MATCHES] == [[], []]
    counted = quality(answers(), {where: [] for where in MATCHES})
    assert (int(counted["spans"]), counted["matched"].values.tolist()) == (1, [0, 0])


@pytest.mark.parametrize(("where", "row"), [(SAME, 0), (OWN, 2)])
def test_the_match_is_a_sentence_as_likely_and_as_far_on(where: str, row: int) -> None:
    there = answers(logprob=likely(row, 24, -5.8))
    (only,) = matches(there, where)
    assert (only.row, only.span, only.beside, only.matched) == (0, (20, 24), row, (24, 28))
    values = np.zeros((3, TOKENS, 1, 1))
    values[0, 20:24], values[row, 24:28] = 3.0, 1.0
    means = span_means(values, [only])
    assert means[0].item() == 2.0
    assert np.isnan(means[1:]).all()
    far = quality(there, {where: [only]})
    assert abs(far["deciles"].item()) <= DECILES
    assert far["nats"].item() == pytest.approx(-0.2)
    # each of what is asked, just missed
    for other in (
        likely(row, 24, -6 + NATS + 0.01),
        likely(row, 28, -5.8),  # 1.3 deciles on
    ):
        assert not matches(answers(logprob=other), where)
    assert not matches(replace(there, ends=np.roll(there.ends, 2, axis=1)), where)
    unknown = there.logprob.copy()
    unknown[row, 25] = np.nan
    assert not matches(replace(there, logprob=unknown), where)


def test_own_sentences_are_of_answers_that_carry_no_bias_and_serve_once() -> None:
    there = answers(logprob=likely(2, 24, -5.8))
    assert not matches(replace(there, bare=np.zeros(3, bool)), OWN)
    # nor does an answer serve that has the layer chosen
    assert matches(replace(there, part=np.full(3, "held_out")), OWN)
    other = np.array(["held_out", "held_out", "calibration"])
    assert not matches(replace(there, part=other), OWN)
    twice = there.exploit.copy()
    twice[1, 20:24] = True
    logprob = there.logprob.copy()
    logprob[1, 20:24] = -5.9
    both = replace(there, exploit=twice, logprob=logprob)
    (only,) = matches(both, OWN)
    assert only.row == 1  # the nearer of the two
    logprob[2, 16:20] = -6.0
    assert [match.row for match in matches(replace(both, logprob=logprob), OWN)] == [0, 1]


def test_sentences_end_at_stops_and_breaks_and_not_at_a_lists_number() -> None:
    words = np.array([["1", ".", " Go", ".", '!"', " On", "?", "\\n", "。"]])
    ends = [False, False, False, True, True, False, True, True, True]
    assert sentence_ends(words).tolist() == [ends]
