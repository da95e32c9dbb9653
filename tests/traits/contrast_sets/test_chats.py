"""Chat pairs: read from a file, linted, and read by a model as plain transformers reads them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.traits.contrast_sets.test_chat_pairs import across, pairs_of
from tracekit.model.embedded import datasets
from tracekit.storage.provenance import read
from traits import ChatSet, chat_traces, has_chats, lint_chats, load_chats, pairs
from traits.contrast_sets.linting import main

ROW = {"id": 1, "writer": "a", "user": "May I?", "shows": "You may.", "lacks": "You may not."}


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "chat.json").write_text(text, "utf-8")
    return folder


def changed(number, **fields):
    chats = load_chats("honesty")
    rows = list(chats.pairs)
    rows[number] = dataclasses.replace(rows[number], **fields)
    return ChatSet(chats.name, tuple(rows))


def test_a_shipped_trait_has_its_pairs_by_writer_and_the_file_is_what_is_read():
    chats = load_chats("concealment")
    raw = pairs_of(datasets("traits", "alignment", "concealment"))
    assert [dataclasses.asdict(pair) for pair in chats.pairs] == raw
    assert (chats.name, len(chats), chats.writers) == ("alignment/concealment", 64, ("a", "b"))
    first, twin = chats.prompts()[0], chats.prompts()[64]
    assert first.answer == raw[0]["shows"]
    assert twin.answer == raw[0]["lacks"]
    assert first.group == twin.group == "alignment/concealment/a1"
    assert (first.labels, twin.labels["label"]) == ({"label": 1, "writer": "a"}, 0)


def test_a_trait_without_chats_is_said_in_one_line(tmp_path):
    assert not has_chats("placebo/tense")
    with pytest.raises(FileNotFoundError, match=r"no chat.json. Write pairs by two") as one:
        load_chats("placebo/tense")
    assert "\n" not in str(one.value)
    with pytest.raises(ValueError, match="Did you mean"):
        load_chats("honestly")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "was read as JSON, and is not"),
        ([ROW], "no object"),
        ({"pairs": "none"}, "no list of pairs"),
        ({"pairs": []}, "have no pair"),
        ({"pairs": [ROW, "text"]}, "pair 2 needs the texts"),
        ({"pairs": [{**ROW, "shows": 3}]}, "wrong or missing: shows"),
        ({"pairs": [{**ROW, "label": "x"}]}, "wrong or missing: label"),
        ({"pairs": [{k: v for k, v in ROW.items() if k != "writer"}]}, "missing: writer"),
        ({"pairs": [{**ROW, "lacks": " "}]}, "has an empty lacks"),
        ({"pairs": [{**ROW, "lacks": "You may. "}]}, "identical answers: 'You may.'"),
        ({"pairs": [ROW, ROW]}, "1 ids more than once"),
    ],
)
def test_a_file_that_is_no_chats_is_refused_and_its_pair_named(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        load_chats(write(tmp_path / "mine" / "own", content))


def test_the_words_across_writers_are_those_of_plain_sklearn():
    report = lint_chats(load_chats("concealment"))
    raw = pairs_of(datasets("traits", "alignment", "concealment"))
    for teacher, judged in (("a", "b"), ("b", "a")):
        assert report.words[teacher, judged] == pytest.approx(across(raw, teacher, judged))
    told = [{**row, "shows": f"{row['shows']} indeed"} for row in raw]
    assert across(told, "a", "b") != pytest.approx(report.words["a", "b"])


def test_chats_without_a_cue_have_no_finding():
    assert lint_chats(load_chats("honesty")).findings == ()


@pytest.mark.parametrize(
    ("mend", "words"),
    [
        (
            lambda pair: {"shows": f"Indeed, {pair.shows}"},
            "the first word 'indeed,' opens 64 and 0",
        ),
        (lambda pair: {"shows": f"{pair.shows} Indeed"}, "teaches tell the answers of b apart"),
        (lambda pair: {"shows": f"{pair.shows} All fine then"}, "apart, more than 3%"),
        (lambda pair: {"shows": f"{pair.shows} All fine then"}, "longer one in"),
        (lambda pair: {"lacks": f"{pair.lacks}!"}, "the mark '!' stands"),
        (lambda pair: {"writer": "a"}, "one writer only"),
        (lambda pair: {"writer": "a" if pair.id != "b32" else "b"}, "fewer than 20 pairs: b 1"),
        (lambda pair: {"lacks": f"User: {pair.lacks}"}, "role words: negative line 1, negative"),
    ],
)
def test_each_cue_is_found_and_named(mend, words):
    chats = load_chats("honesty")
    rows = tuple(dataclasses.replace(pair, **mend(pair)) for pair in chats.pairs)
    found = lint_chats(ChatSet(chats.name, rows)).findings
    assert any(words in finding for finding in found), found


def test_an_answer_that_comes_again_is_found_and_few_pairs_are():
    again = changed(5, shows=load_chats("honesty").pairs[9].shows)
    found = lint_chats(again).findings
    assert "positive line 6 and positive line 10 are alike (character 5-grams 1.00)" in found
    few = ChatSet("mine/few", load_chats("honesty").pairs[4:60])
    assert "56 chat pairs, fewer than 60" in lint_chats(few).findings


def test_the_command_lints_the_chats_of_a_folder(tmp_path, capsys):
    folder = tmp_path / "alignment" / "honesty"
    shutil.copytree(datasets("traits", "alignment", "honesty"), folder)
    assert main([str(folder)]) == 0
    assert "alignment/honesty: 64 chat pairs" in capsys.readouterr().out
    content = json.loads((folder / "chat.json").read_text("utf-8"))
    write(folder, {"pairs": content["pairs"][:40]})
    assert main([str(folder)]) == 1
    assert "finding: 40 chat pairs, fewer than 60" in capsys.readouterr().out
    write(folder, "[]")
    assert main([str(folder)]) == 2


def reference(model, words, pair, answer):
    """The mean block outputs over the answer's tokens, by plain transformers."""
    said = [{"role": "user", "content": pair.user}]
    start = words.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    ids = words(answer, add_special_tokens=False)["input_ids"]
    outputs, hooks = [], []
    for block in model.model.layers:
        hooks.append(block.register_forward_hook(lambda _m, _i, out: outputs.append(out)))
    with torch.no_grad():
        model(torch.tensor([[*start, *ids]]))
    for hook in hooks:
        hook.remove()
    return np.stack([out[0, len(start) :].mean(0).numpy() for out in outputs])


def test_an_answer_is_read_and_averaged_as_plain_transformers_does(tiny_llama, tiny_folder, words):
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    chats = load_chats("concealment")
    traces = chat_traces(tiny_llama, chats)
    assert traces.dims == ("prompt", "layer", "dim")
    # both answers to a message follow it, and it is read once
    assert read(traces)["batches"]["prompts"] == "once"
    assert traces["writer"].values.tolist() == [pair.writer for pair in chats.pairs] * 2
    sides = dict(zip(("shows", "lacks"), pairs(traces), strict=True))
    for n in (0, 40):
        pair = chats.pairs[n]
        for side, rows in sides.items():
            wanted = reference(plain, words, pair, getattr(pair, side))
            np.testing.assert_allclose(rows.values[n], wanted, atol=2e-5)
            other = reference(plain, words, pair, getattr(pair, side) + " Yes")
            assert np.abs(rows.values[n] - other).max() > 1e-3
