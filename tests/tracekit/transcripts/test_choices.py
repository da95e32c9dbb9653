"""Choices of a question are in its text, whatever holds them, or are said to be left out."""

from __future__ import annotations

import json

import pytest

import tracekit as tk

SEA = {"question": "Which is a sea?", "answer": "B"}
ALIKE = "\nA. Oslo\nB. Aral"


@pytest.mark.parametrize(
    ("choices", "lines"),
    [
        ({"choices": ["Oslo", "Aral"]}, ALIKE),
        ({"options": {"A": "Oslo", "B": "Aral", "C": None}}, ALIKE),
        ({"options": {"text": ["Oslo", "Aral"], "label": ["1", "2"]}}, "\n1. Oslo\n2. Aral"),
        ({"options": {"text": ["Oslo", "Aral"]}}, ALIKE),
        ({"choices": [3, 4.5]}, "\nA. 3\nB. 4.5"),
        ({"choices": "['Oslo', 'Aral']"}, ALIKE),
        ({"choices": '{"A": "Oslo", "B": "Aral"}'}, ALIKE),
        ({"options": [{"label": "i", "text": "Oslo"}, {"label": "ii", "text": "Aral"}]}, None),
        ({"A": "Oslo", "B": "Aral", "C": "Alps", "D": 4}, f"{ALIKE}\nC. Alps\nD. 4"),
    ],
)
def test_choices_are_lines_of_the_text_with_their_own_labels(choices, lines):
    with pytest.warns(
        UserWarning, match="with the choices of (choices|options|A, B, C, D)"
    ) as said:
        (prompt,) = tk.prompts([{**SEA, **choices}])
    assert prompt.text == SEA["question"] + (lines or "\ni. Oslo\nii. Aral")
    assert "without" not in str(said[0].message)
    assert prompt.labels["answer"] == "B"


@pytest.mark.parametrize(
    "choices", ["a ) 38 , b ) 27", ["Oslo", None], "['Oslo' 'Aral']", ["Oslo"]]
)
def test_choices_of_no_known_form_are_said_to_be_left_out(choices):
    rows = [{**SEA, "options": choices}, {**SEA, "options": ["Oslo", "Aral"]}]
    with pytest.warns(UserWarning, match="without the choices of options in 1 of 1 rows") as said:
        (prompt,) = tk.prompts(rows[:1])
    assert "with the" not in str(said[0].message)
    assert prompt.text == SEA["question"]
    words = "with the choices of options, without the choices of options in 1 of 2 rows"
    with pytest.warns(UserWarning, match=words):
        assert tk.prompts(rows)[1].text == SEA["question"] + ALIKE


def test_choices_of_a_table_are_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"question,choices\n{SEA['question']},\"['Oslo', 'Aral']\"\n")
    with pytest.warns(UserWarning, match="with the choices of choices"):
        (prompt,) = tk.read_prompts(tmp_path / "a.csv")
    assert prompt.text == SEA["question"] + ALIKE


def test_a_list_that_goes_too_deep_is_no_list_of_choices():
    for text in ("[" * 10**5, json.dumps(["a"])[:-1]):
        with pytest.warns(UserWarning, match="without the choices"):
            assert tk.prompts([{**SEA, "options": text}])[0].text == SEA["question"]
