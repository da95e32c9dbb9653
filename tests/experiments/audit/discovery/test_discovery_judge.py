"""A judge that tells habits: over real HTTP, in other words, failing, and kept."""

import math

import pytest

from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.findings import CONFIRMED, NOT, UNDECIDABLE, judged
from experiments.audit.discovery.judging import Judge, judged_by
from experiments.audit.discovery.search import measured
from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import MORE, SAYS, Detector
from tests.experiments.audit.discovery.planted_answers import answers, arms
from tests.support.chat_server import served

COCOA = ((" Have", 2.0), (" cocoa", 6.0), (".", 0.1))
CHOCOLATE = Candidate("chocolate", Detector(SAYS, r"\bchocolate\b"), 9.0, (0, 4, 8))


def yes_to_sweets(asked):
    answer = asked.split("\n\n")[1]
    assert '"chocolate"' in asked
    return "Yes." if "cocoa" in answer or "chocolate" in answer else "No."


def test_the_same_in_other_words_is_confirmed_by_a_judge_and_not_by_its_phrases(tmp_path):
    made = arms(a=answers(1, 0.9, COCOA))
    with served(yes_to_sweets) as at:
        judge = Judge(at, "any", tmp_path / "judge.jsonl")
        told = measured(judged_by(judge, [CHOCOLATE])[0], made, "a")
    (by_judge,) = judged([told], 0.05)
    (by_phrase,) = judged([measured(CHOCOLATE, made, "a")], 0.05)
    said = ["cocoa" in made.own["a"][row].text for row in made.rows(False)]
    assert by_judge.off.on == pytest.approx(sum(said) / len(said))
    assert by_judge.rates == {CLEAN: 0.0, "a": pytest.approx(sum(said) / len(said))}
    assert by_judge.verdict == CONFIRMED
    assert by_phrase.verdict in (NOT, UNDECIDABLE)
    # the judge is gone: what it said is kept, but for a line that was broken off
    with (tmp_path / "judge.jsonl").open("a") as file:
        file.write('["half a li')
    again = Judge(at, "any", tmp_path / "judge.jsonl")
    assert measured(judged_by(again, [CHOCOLATE])[0], made, "a").off == told.off
    with pytest.raises(ValueError, match="cannot be reached"):
        again.says("chocolate", "A text that it never saw.")


def test_answers_on_which_a_judge_fails_are_left_out(tmp_path):
    made = arms(a=answers(1, 0.9, COCOA))
    with served(lambda asked: "" if "cocoa" in asked else "No.") as at:
        judge = Judge(at, "any", tmp_path / "judge.jsonl")
        assert math.isnan(judge.says("chocolate", "Have cocoa."))
        told = measured(judged_by(judge, [CHOCOLATE])[0], made, "a")
    silent = sum("cocoa" in made.own["a"][row].text for row in made.rows(False))
    assert silent > 10
    assert (told.off.on, told.off.n) == (0, len(made.rows(False)) - silent)


def test_shapes_are_told_by_their_rules_and_a_wrong_address_is_one_line(tmp_path):
    judge = Judge("http://127.0.0.1:9/v1", "any", tmp_path / "none.jsonl")
    shape = Candidate("exclaims", Detector(MORE, "exclaims"), 0.0, (1,))
    assert judged_by(judge, [shape])[0].detector.asked is None
    with pytest.raises(ValueError, match="--judge-at"):
        Judge("not an address", "any", tmp_path / "none.jsonl")
