"""The tokens of a text, over turns, in part, all or last; what each token says, in any script."""

import inspect
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tracekit as tk
from tracekit.transcripts.encode import pieces, token_texts


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


TEXTS = ["Done ✓ 🎉 ✅ now", "안녕하세요 Привет", "Tea, plain.", "", "½"]


@pytest.mark.parametrize("asked", [{"which": "first"}, {"missing": "ignore"}])
def test_another_word_is_refused(runs, asked):
    (word,) = asked.values()
    with pytest.raises(tk.InputError, match=f"'{word}' was asked for; there are"):
        inspect.unwrap(tk.find)(runs, "Paris", **asked)


@pytest.fixture(scope="module")
def trimming():
    """As Llama 2's: a text's first space goes, and bytes stand for what it lacks."""
    words = ["<unk>", *(f"<0x{n:02X}>" for n in range(256)), *"▁abcdehnt", "▁a", "▁the", "▁cat"]
    vocabulary = [(word, -1.0 * len(words) / len(word)) for word in words]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text(words, text):
    ids = words(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces(words, ids)) == text
    assert len(pieces(words, ids)) == len(ids)
    assert "".join(pieces(words, ids[:-1])) == words.decode(ids[:-1]).rstrip("\ufffd")


def test_pieces_of_a_tokenizer_that_trims(trimming):
    ids = trimming("the cat ☕ at", add_special_tokens=False)["input_ids"]
    got = pieces(trimming, ids)
    assert "".join(got) == trimming.decode(ids) == "the cat ☕ at"
    assert got[:2] == ["the", " cat"]
    assert got[ids.index(trimming.convert_tokens_to_ids("<0x95>"))] == "☕"
    # the twin: token by token, spaces and the sign are lost
    assert "".join(trimming.decode([one]) for one in ids) != "the cat ☕ at"


def test_a_words_space_is_shown_and_found_whatever_the_tokenizer(trimming, words):
    for tokenizer in (trimming, words):
        ids = np.array([tokenizer("the cat", add_special_tokens=False)["input_ids"]])
        shown = token_texts(tokenizer, ids)[0].tolist()
        assert shown[-1] == " cat" or "".join(shown[-2:]) == " cat"
    assert token_texts(words, np.array([[-1, words.eos_token_id]])).tolist() == [
        ["", words.decode([words.eos_token_id])]
    ]


def test_a_phrase_is_found_where_a_tokenizer_trims(tiny_folder, trimming):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=trimming, check=False)
    runs = tk.encode(model, ["the cat"], template="raw")
    found = tk.find(runs, "the cat")
    assert int(found.sum()) == int((runs.token_id >= 0).sum())
