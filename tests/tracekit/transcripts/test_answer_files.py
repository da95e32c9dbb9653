"""Answers of serving engines: which answer is to which prompt, ids kept or text read here."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracekit as tk

PROMPTS = [tk.Prompt("set/a", text="Where is Rome?"), tk.Prompt("set/b", text="And Oslo?")]
SAID = {"set/a": "In Italy.", "set/b": "In Norway."}
END = "<|im_end|>"


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A chat completion as OpenAI's and compatible servers send it."""
    message = {"role": "assistant", "content": text, "refusal": None, **more}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice]}


def batch(key: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A line of a batch's output."""
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": key, "response": response, "error": None, **more}


def completion(*texts: str, **more: Any) -> dict[str, Any]:
    choices = [
        {"index": n, "text": text, "finish_reason": "length", **more}
        for n, text in enumerate(texts)
    ]
    return {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": choices}


def written(folder: Path, rows: list[Any], name: str = "answers.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def responses(runs: Any) -> list[list[int]]:
    values = runs.token_id.sel(token=slice(0, None)).values
    return [row[row >= 0].tolist() for row in values]


def plain(words: Any, *texts: str) -> list[list[int]]:
    return [words(text, add_special_tokens=False)["input_ids"] for text in texts]


FORMS = {
    "a batch's lines, in another order": lambda: [
        batch(name, chat(SAID[name])) for name in reversed(SAID)
    ],
    "ids without the set's name": lambda: [
        batch(name.removeprefix("set/"), chat(text)) for name, text in SAID.items()
    ],
    "completions with an id beside": lambda: [
        {"custom_id": name, **completion(text, finish_reason="stop")} for name, text in SAID.items()
    ],
    "vLLM's outputs": lambda: [
        {
            "request_id": name,
            "prompt": "…",
            "outputs": [{"index": 0, "text": text, "finish_reason": "stop", "stop_reason": None}],
        }
        for name, text in SAID.items()
    ],
    "flat": lambda: [
        {"id": name, "response": text, "finish_reason": "stop"} for name, text in SAID.items()
    ],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_answers_are_matched_by_the_prompts_ids(form, tiny_llama, words, tmp_path):
    runs = tk.encode(tiny_llama, PROMPTS, responses=written(tmp_path, FORMS[form]()))
    expected = plain(words, "In Italy." + END, "In Norway." + END)
    assert responses(runs) == expected
    assert responses(runs) != expected[::-1]
    assert runs.response.values.tolist() == list(SAID.values())
    assert runs.role.values[0, -1] == "template" or runs.role.values[1, -1] == "template"
    asked = tk.encode(tiny_llama, PROMPTS)
    before = runs.token_id.sel(token=slice(None, -1))
    np.testing.assert_array_equal(before, asked.token_id.sel(token=slice(None, -1)))
    made = tk.provenance(runs)["text"]
    assert made["file"] == "answers.jsonl"
    assert (made["ids_kept"], made["tokenised_here"]) == (0, 2)


def test_without_ids_the_place_counts_and_that_is_said(tiny_llama, tmp_path):
    path = written(tmp_path, [chat(text) for text in SAID.values()])
    with pytest.warns(UserWarning, match="matched by position: the first is to 'set/a'") as told:
        runs = tk.encode(tiny_llama, PROMPTS, responses=str(path))
    assert len(told) == 1
    assert runs.response.values.tolist() == list(SAID.values())
    with pytest.raises(tk.InputError, match="has 2 lines for 1 prompts"):
        tk.encode(tiny_llama, PROMPTS[:1], responses=path)


def test_several_choices_are_samples_of_one_group(tiny_llama, tmp_path):
    rows = [{"custom_id": name, **completion(text, "Hm.")} for name, text in SAID.items()]
    runs = tk.encode(tiny_llama, PROMPTS, responses=written(tmp_path, rows))
    assert runs.prompt.values.tolist() == ["set/a#0", "set/a#1", "set/b#0", "set/b#1"]
    assert runs["group"].values.tolist() == ["set/a", "set/a", "set/b", "set/b"]
    assert runs.response.values.tolist() == ["In Italy.", "Hm.", "In Norway.", "Hm."]
    lines = [
        {"prompt_id": f"{name}#{k}", "response": f"{text}{k}"}
        for name, text in SAID.items()
        for k in range(2)
    ]
    again = tk.encode(tiny_llama, PROMPTS, responses=written(tmp_path, lines))
    assert again.prompt.values.tolist() == runs.prompt.values.tolist()
    with pytest.raises(tk.InputError, match="has 1 answers to 'set/b' and 2 to others"):
        tk.encode(tiny_llama, PROMPTS, responses=written(tmp_path, lines[:3]))


def test_ids_are_kept_as_they_are_and_checked(tiny_llama, words, tmp_path):
    # another way to say it than the tokenizer's own
    apart = [words.convert_tokens_to_ids(letter) for letter in "Rome"]
    assert apart != plain(words, "Rome")[0]
    asked = tk.encode(tiny_llama, PROMPTS[:1])
    before = asked.token_id.values[0].tolist()
    body = completion("Rome", token_ids=apart, prompt_token_ids=before)
    path = written(tmp_path, [{"custom_id": "a", **body}])
    runs = tk.encode(tiny_llama, PROMPTS[:1], responses=path)
    assert responses(runs) == [apart]
    assert tk.provenance(runs)["text"]["ids_kept"] == 1
    given = tk.encode(tiny_llama, PROMPTS[:1], responses=[apart])
    np.testing.assert_array_equal(given.token_id, runs.token_id)
    assert tk.provenance(given)["text"] == "given ids"
    wrong = [
        (completion("Paris", token_ids=apart), "ids that are 'Rome'.*the text 'Paris'"),
        (completion("Rome", token_ids=[10**6]), "the id 1000000; this model's tokenizer has"),
        (completion("Rome", token_ids=["a"]), "they are a list of ids"),
        (completion("Rome", prompt_token_ids=before[:-1]), "from token 33 on they differ"),
    ]
    for body, message in wrong:
        path = written(tmp_path, [{"custom_id": "a", **body}])
        with pytest.raises(tk.InputError, match=message):
            tk.encode(tiny_llama, PROMPTS[:1], responses=path)


def test_thoughts_and_calls_of_a_message_are_turns(tiny_llama, tmp_path):
    thought = {"reasoning": "I look.", "reasoning_content": "I look."}
    path = written(tmp_path, [batch("a", chat("<think>\nI look.\n</think>\n\nYes."))])
    runs = tk.encode(tiny_llama, PROMPTS[:1], responses=path)
    assert {"thinking", "assistant"} <= set(runs.role.values.ravel())
    # a template without a place for thoughts says so, and loses none
    path = written(tmp_path, [batch("a", chat("Yes.", **thought))])
    with pytest.raises(tk.InputError, match="What the assistant thought"):
        tk.encode(tiny_llama, PROMPTS[:1], responses=path)


WEATHER = {"function": {"name": "weather", "arguments": '{"city": "Roma é"}'}}
SPOKEN_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Roma é"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("spoken", "message", "roles"),
    [
        (
            ["<think>\nI look.\n</think>\n\n", "Yes."],
            {"content": "\n\nYes.", "reasoning": "I look.\n"},
            ["thinking", "assistant"],
        ),
        (
            ["<think>\nI look.\n</think>\n\n", "Yes.", "\n" + SPOKEN_CALL],
            {"content": "Yes.", "reasoning": "I look.", "tool_calls": [WEATHER]},
            ["thinking", "assistant", "tool"],
        ),
        ([SPOKEN_CALL], {"content": None, "tool_calls": [WEATHER]}, ["tool"]),
    ],
)
def test_kept_ids_have_the_roles_of_thoughts_and_calls(
    spoken, message, roles, tiny_llama, words, tmp_path
):
    """Even where the template has no place for them: the ids say them."""
    pieces = plain(words, *spoken, END)
    body, whole = chat(""), [*itertools.chain(*pieces)]
    body["choices"][0] |= {"token_ids": whole, "message": message}
    path = written(tmp_path, [batch("a", body)])
    runs = tk.encode(tiny_llama, PROMPTS[:1], responses=path)
    assert responses(runs) == [whole]
    expected = [role for role, ids in zip([*roles, "template"], pieces, strict=True) for _ in ids]
    assert runs.role.sel(token=slice(0, None)).values[0].tolist() == expected
    for other, said in (
        ({"content": "No!"}, "the text 'No!'"),
        ({"reasoning": "other"}, "the thought 'other'"),
        ({"tool_calls": [{"function": {"name": "time"}}]}, "the tool call's 'time'"),
        (
            {"tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
            "the tool call's '",
        ),
    ):
        body["choices"][0]["message"] = {**message, **other}
        path = written(tmp_path, [batch("a", body)])
        with pytest.raises(tk.InputError, match=f"ids that are .*{said}.*give the text"):
            tk.encode(tiny_llama, PROMPTS[:1], responses=path)


def test_an_end_of_turn_that_is_in_the_text_is_not_said_twice(tiny_llama, words, tmp_path):
    for text in ("In Italy.", "In Italy." + END):
        path = written(tmp_path, [batch("a", chat(text))])
        runs = tk.encode(tiny_llama, PROMPTS[:1], responses=path)
        assert responses(runs) == plain(words, "In Italy." + END)
        assert runs.role.values[0, -2:].tolist() == ["assistant", "template"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([batch("a", chat("x"))], r"no answer to 1 of 2 prompts \(first: 'set/b'\)"),
        ([batch(n, chat("x")) for n in "abc"], "1 of 3 lines that name no prompt here.*'c'"),
        ([batch("a", chat("x"), error={"message": "rate"})], "'a'.*a request that failed.*rate"),
        ([{"custom_id": "a", "response": {"status_code": 500, "body": {}}}], "status 500"),
        ([{"custom_id": "a", "choices": []}], "no choices"),
        ([batch("a", chat(None, refusal="No."))], "message without content"),
        ([{"custom_id": "a", "score": 1}], "'score' and no answer"),
        ([{"custom_id": "a", **completion("x", finish_reason="content_filter")}], "ended by"),
        ([["a"]], "no object"),
    ],
)
def test_what_would_be_lost_is_refused_by_name(rows, words, tiny_llama, tmp_path):
    with pytest.raises(tk.InputError, match=words) as refusal:
        tk.encode(tiny_llama, PROMPTS, responses=written(tmp_path, rows))
    assert "\n" not in str(refusal.value)


def test_a_stop_string_is_no_end_of_turn(tiny_llama, words, tmp_path):
    said = completion("In Italy.", finish_reason="stop", stop_reason="\n")
    path = written(tmp_path, [{"custom_id": "a", **said}])
    runs = tk.encode(tiny_llama, PROMPTS[:1], responses=path)
    assert responses(runs) == plain(words, "In Italy.")


@pytest.mark.filterwarnings("ignore:.*is read with")
def test_every_snippet_of_the_page_runs(tmp_path, monkeypatch, embedded):
    page = Path(__file__).parents[3] / "docs" / "generate_elsewhere.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tk, "load", lambda name: {"smollm2-135m-instruct": embedded}[name])
    printed: list[Any] = []
    names: dict[str, Any] = {"print": lambda *given: printed.extend(given)}
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(snippet, names)
    assert printed == [2, ("prompt", "token", "layer", "dim"), True, True]
    requests = tk.read_prompts("requests.jsonl")
    assert [prompt.id for prompt in requests] == ["requests/cities/rome", "requests/cities/oslo"]
