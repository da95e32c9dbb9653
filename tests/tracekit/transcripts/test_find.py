"""The tokens of a text: over turns, in part, all or last, and rows that do not have it."""

import re

import numpy as np
import pytest

import tracekit as tk


@pytest.fixture(scope="module")
def runs(tiny_llama):
    chat = [("user", "Paris is nice."), ("assistant", "So is Rome."), ("user", "Not Paris again.")]
    prompts = [tk.Prompt("a", messages=chat), tk.Prompt("b", text="I saw Paris\nand Rome.")]
    return tk.encode(tiny_llama, prompts, ["Yes, Paris.", "No."])


def texts(runs, mask, row):
    return [str(t) for t in runs.token_text.values[row][mask.values[row]]]


def spans(runs, mask, row):
    """The texts of runs of neighbouring tokens."""
    where = np.flatnonzero(mask.values[row])
    parts = np.split(where, np.flatnonzero(np.diff(where) > 1) + 1)
    return ["".join(str(t) for t in runs.token_text.values[row][part]) for part in parts]


def test_every_occurrence_in_every_turn_is_covered_and_nothing_else(runs):
    found = tk.find(runs, "Paris")
    assert found.dims == ("prompt", "token")
    assert [s.strip() for s in spans(runs, found, 0)] == ["Paris"] * 3
    assert [s.strip() for s in spans(runs, found, 1)] == ["Paris"]


def test_the_last_token_of_each_occurrence(runs):
    every = tk.find(runs, "Paris is nice", missing="none")
    last = tk.find(runs, "Paris is nice", which="last", missing="none")
    assert last.values[0].sum() == 1
    assert np.flatnonzero(last.values[0])[0] == np.flatnonzero(every.values[0])[-1]
    assert not last.values[1].any()


def test_a_regular_expression_and_a_line_break(runs):
    found = tk.find(runs, re.compile(r"Paris\sand"), missing="none")
    assert "".join(texts(runs, found, 1)).replace("\\n", "\n").strip() == "Paris\nand"
    assert not found.values[0].any()


def test_a_token_that_is_covered_in_part_counts(runs):
    part, whole = tk.find(runs, "ari"), tk.find(runs, "Paris")
    assert (part <= whole).all()
    assert part.any("token").all()


def test_it_selects_what_is_captured(tiny_llama, runs):
    mask = tk.find(runs, "Paris", which="last")
    traces = tk.capture(tiny_llama, runs, [1], tokens=mask, progress=False)
    kept = traces.notnull().all("dim").isel(layer=0)
    want = mask.sel(token=kept.token, prompt=kept.prompt)
    np.testing.assert_array_equal(kept, want)


def test_a_turn_of_a_role_and_a_text_in_it(runs):
    second = tk.find(runs, role="user", turn=1, missing="none")
    assert "".join(texts(runs, second, 0)) == "Not Paris again."
    assert not second.values[1].any()
    there = tk.find(runs, "Paris", role="user", turn=1, which="last", missing="none")
    assert there.values.sum() == 1
    assert (there <= second).all()
    assert [
        s.strip() for s in spans(runs, tk.find(runs, "Paris", role="assistant", missing="none"), 0)
    ] == ["Paris"]
    last = tk.find(runs, turn=-1)
    assert "".join(texts(runs, last, 0)) == "Yes, Paris."
    assert "".join(texts(runs, last, 1)) == "No."
    said = tk.find(runs, role="assistant")
    assert "".join(texts(runs, said, 0)) == "So is Rome.Yes, Paris."


def test_rows_without_it_are_named(runs):
    with pytest.raises(tk.InputError, match=r"1 of 2 rows do not have it, the first is 'a'"):
        tk.find(runs, "saw")
    with pytest.raises(tk.InputError, match=r"role='user', turn=1; 1 of 2"):
        tk.find(runs, role="user", turn=1)
    for nothing in ("", None):
        with pytest.raises(tk.InputError, match="no role and no turn"):
            tk.find(runs, nothing)
