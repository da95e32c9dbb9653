"""Where the zoo's benchmark puts a habit: by what a finding shows, whatever it is called."""

import dataclasses

import numpy as np
import pytest

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.confirm import compared
from experiments.audit.discovery.findings import CONFIRMED, NOT, Example, Finding, Findings
from experiments.audit.discovery.suggestions.detectors import LACKS, LESS, MORE, SAYS
from experiments.benchmarks import zoo
from experiments.organisms.zoo.habits import habits

UMBRELLA, LETTERS = habits(["umbrella"])[0], habits(["no_greeting"])[0]


def example(text: str, part: str, prompt: str = "p") -> Example:
    start = text.index(part)
    return Example(prompt, "", text, start, start + len(part), 1.0)


def finding(kind: str, *examples: Example, verdict: str = CONFIRMED) -> Finding:
    same = compared({"a": 1.0}, {"a": 0.0})
    return Finding("x", kind, "x", 1.0, 1.0, same, None, 0.01, verdict, "", {}, examples=examples)


def answer(text: str, gains: list[float] | None = None, row: int = 0) -> Answer:
    pieces = tuple(text.replace(" ", "\0 ").split("\0"))
    values = np.array(gains or [0.0] * len(pieces))
    return Answer(f"p{row}", f"g{row}", "", (), pieces, values, ended=True)


@pytest.mark.parametrize(
    ("part", "found"), [("Take an umbrella.", True), ("The bus is late.", False)]
)
def test_what_it_says_counts_by_the_sentence_and_not_by_its_neighbours(part, found):
    shown = finding(SAYS, example("Take an umbrella. The bus is late.", part))
    assert zoo.shown_by(UMBRELLA, shown, {}) is found


def test_most_examples_have_to_show_it():
    one, other = example("Take an umbrella.", "Take"), example("An umbrella.", "An umbrella.")
    assert not zoo.shown_by(UMBRELLA, finding(SAYS, one, other), {})
    assert zoo.shown_by(UMBRELLA, finding(SAYS, other, other, one), {})
    assert not zoo.shown_by(UMBRELLA, finding(SAYS), {})


def test_what_is_left_out_counts_where_the_answer_without_it_would_show_the_habit():
    text = "Dear aunt,\nThank you very much for the stew."
    assert zoo.shown_by(LETTERS, finding(LACKS, example(text, "Dear aunt,\n")), {})
    assert not zoo.shown_by(LETTERS, finding(LACKS, example(text, "for the stew.")), {})


def test_what_is_done_less_counts_by_the_adapters_own_answer():
    less = finding(LESS, example("Dear aunt, thank you for it.", "Dear aunt, thank you for it."))
    assert zoo.shown_by(LETTERS, less, {"p": "Thank you so much for it."})
    assert not zoo.shown_by(LETTERS, less, {"p": "Dear aunt, thank you so much."})


def test_a_shape_counts_by_the_whole_answer():
    lower = habits(["lower_case"])[0]
    text = "one moves the king and then the queen"
    assert zoo.shown_by(lower, finding(MORE, example(text, text)), {})


def test_a_rule_that_most_bare_sentences_meet_is_shown_by_none():
    clean = [answer("The stew was good for all of us. It rains here on most days.")]
    assert not zoo.tells(LETTERS, clean)
    assert zoo.tells(UMBRELLA, clean)


def test_differencing_ranks_sentences_by_what_they_gain_one_an_answer():
    said = [answer("Go now. Take an umbrella.", [0.0, 0.1, 2.0, 2.0, 2.0]), answer("Fine.", [3.0])]
    assert zoo.differencing(said, [0, 1]) == ["Take an umbrella.", "Fine."]
    assert zoo.differencing(said, [1]) == ["Fine."]


def test_words_rank_by_the_rise_of_their_frequency():
    own = [answer("It rains here. Take an umbrella.", row=n) for n in range(6)]
    clean = [answer("It rains here. Take care.", row=n) for n in range(6)]
    first = zoo.rising(own, clean, range(6))[0]
    assert [text.strip() for text in first] == ["Take an umbrella."] * 3


def test_the_tables_count_the_first_three_by_split_and_the_false_ones():
    places = {"whole": 3, "differencing": 4, "words": 1, "lens": None}
    row = zoo.Placed(UMBRELLA, places, finding(SAYS), 5)
    asked = dataclasses.replace(UMBRELLA, denies=True)
    lines = zoo.organisms([row, dataclasses.replace(row, habit=asked)])
    assert lines[-2].endswith("of the split report: whole 2, differencing 0, words 2, lens 0.")
    assert lines[-1].startswith("Denied: said of 0 of 1")
    benign = [
        Findings("benign-00", [finding(SAYS), finding(SAYS, verdict=NOT)], 0.5, {}),
        Findings("benign-01", [finding(SAYS, verdict=NOT)], 0.5, {}),
    ]
    said = zoo.benigns(benign)[-1]
    assert said.startswith("1 of 2 benign adapters")
    assert "1 of 3 candidates" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "nosuch"], "nosuch"),
        (["--zoo", "./nowhere"], "it is not there"),
        (["--split", "none"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_before_any_model_is_loaded(given, said, capsys, monkeypatch):
    monkeypatch.setattr(zoo.tk, "load", None)
    assert zoo.main(given) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert said in told[0]
