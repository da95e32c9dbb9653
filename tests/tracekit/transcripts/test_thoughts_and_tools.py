"""Thoughts, tools and prefills: roles by the model's own template, and what it cannot show."""

from __future__ import annotations

import copy
import json

import pytest

import tracekit as tk
from tests.support.file_forms import chat_templates
from tracekit.storage.provenance import read

ASKED = {"role": "user", "content": "Is it warm in Rome?"}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Rome"}},
}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": 'It is "22" degrees'}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"city": "text"}}}]
THOUGHT = {"role": "assistant", "reasoning_content": "I look it up.", "content": "Yes, warm."}


@pytest.fixture
def thinking(fresh_llama):
    """The tiny model with a template that knows thoughts and tools."""
    return with_template(fresh_llama, chat_templates.THINKS)


def with_template(model, template):
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.chat_template = template
    return model


def rendered(model, messages, **more):
    return model.tokenizer.apply_chat_template(messages, tokenize=False, **more)


def said(model, runs, role, tokens=slice(None), row=0):
    """The text of a row's tokens of one role."""
    one = runs.isel(prompt=row).sel(token=tokens)
    return model.tokenizer.decode(one.token_id.values[one.role.values == role])


def whole(model, runs, tokens=slice(None)):
    ids = runs.isel(prompt=0).sel(token=tokens).token_id.values
    return model.tokenizer.decode(ids[ids >= 0])


def test_a_thought_is_in_the_response_as_the_template_writes_it(thinking):
    runs = tk.encode(thinking, [[ASKED, THOUGHT]])
    before = rendered(thinking, [ASKED], add_generation_prompt=True)
    after = rendered(thinking, [ASKED, THOUGHT]).removeprefix(before)
    assert after == "<think>\nI look it up.\n</think>\n\nYes, warm.<|im_end|>\n"
    assert whole(thinking, runs, slice(None, -1)) == before
    response = slice(0, None)
    assert whole(thinking, runs, response) == after.removesuffix("<|im_end|>\n")
    assert said(thinking, runs, "assistant", response) == "Yes, warm."
    thought = said(thinking, runs, "thinking", response)
    assert thought == "<think>\nI look it up.\n</think>\n\n"
    # the same in the model's own words, and in Anthropic's parts
    parts = [
        {"type": "thinking", "thinking": "I look it up."},
        {"type": "text", "text": "Yes, warm."},
    ]
    for content in (f"{thought}Yes, warm.", parts):
        same = tk.encode(thinking, [[ASKED, {"role": "assistant", "content": content}]])
        assert same.token_id.equals(runs.token_id)
        assert same.role.equals(runs.role)
    other = tk.encode(thinking, [[ASKED, {**THOUGHT, "reasoning_content": "I guess."}]])
    assert not other.token_id.equals(runs.token_id)


def test_a_thought_of_an_earlier_turn_is_left_out_with_a_word(thinking):
    talk = [ASKED, THOUGHT, {"role": "user", "content": "And Oslo?"}]
    with pytest.warns(UserWarning, match=r"leaves out what the assistant thought.*I look it up"):
        runs = tk.encode(thinking, [talk])
    assert whole(thinking, runs) == rendered(thinking, talk, add_generation_prompt=True)
    assert said(thinking, runs, "assistant") == "Yes, warm."
    inline = {"role": "assistant", "content": "<think>\nI look it up.\n</think>\n\nYes, warm."}
    with pytest.warns(UserWarning, match="leaves out"):
        same = tk.encode(thinking, [[ASKED, inline, talk[2]]])
    assert same.token_id.equals(runs.token_id)


def test_a_thought_that_a_template_never_shows_is_refused(fresh_llama):
    for template in (None, chat_templates.OPENS):
        model = with_template(fresh_llama, template) if template else fresh_llama
        for talk in ([ASKED, THOUGHT], [ASKED, THOUGHT, ASKED]):
            with pytest.raises(tk.InputError, match=r"\('I look it up.'\).*leaves it out.*content"):
                tk.encode(model, [talk])
    # what it says to write instead: the template's prompt has opened the thought
    own = {"role": "assistant", "content": "I look it up.\n</think>\n\nYes, warm."}
    runs = tk.encode(fresh_llama, [[ASKED, own]])
    assert said(fresh_llama, runs, "thinking") == "I look it up.\n</think>\n\n"
    assert said(fresh_llama, runs, "assistant") == "Yes, warm."
    assert whole(fresh_llama, runs).startswith("<U>Is it warm in Rome?<A><think>\nI look")


def test_calls_and_results_are_the_tools(thinking):
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    talk = [ASKED, calling, RESULT]
    runs = tk.encode(thinking, [talk], tools=TOOLS)
    plain = [ASKED, {**calling, "content": ""}, RESULT]
    assert whole(thinking, runs) == rendered(
        thinking, plain, tools=TOOLS, add_generation_prompt=True
    )
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert said(thinking, runs, "tool") == call + 'It is "22" degrees'
    assert said(thinking, runs, "user") == "Is it warm in Rome?"
    assert read(runs)["tools"] == TOOLS
    # a call at the end is the response; OpenAI's own form has the arguments as text
    texts = {**CALL, "function": {"name": "weather", "arguments": json.dumps({"city": "Rome"})}}
    last = tk.encode(thinking, [[ASKED, {**calling, "tool_calls": [texts]}]], tools=TOOLS)
    assert whole(thinking, last, slice(0, None)) == "<think>\n\n</think>\n\n" + call
    assert said(thinking, last, "tool", slice(0, None)) == call
    assert said(thinking, last, "tool", slice(None, -1)) == ""


@pytest.mark.parametrize("name", ["QUOTES", "OPENS"])
def test_templates_that_quote_results_or_join_arguments_are_read(fresh_llama, name):
    model = with_template(fresh_llama, getattr(chat_templates, name))
    talk = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT]
    runs = tk.encode(model, [talk])
    shown = said(model, runs, "tool")
    assert "weather" in shown
    assert '"city": "Rome"' in shown
    assert shown.endswith('It is \\"22\\" degrees' if name == "QUOTES" else 'It is "22" degrees')
    if name == "QUOTES":
        assert "<|start|>ipython weather c1<|end|>" in whole(model, runs)


def test_what_a_template_has_no_place_for_is_refused_by_name(tiny_llama):
    calling = {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    for given, words in (
        (
            {"prompts": [[ASKED, calling, ASKED]]},
            "call of the tool 'weather'.*leaves tool calls out",
        ),
        ({"prompts": ["a"], "tools": TOOLS}, "argument 'tools' was given"),
        ({"prompts": ["a"], "enable_thinking": False}, "argument 'enable_thinking'"),
        (
            {"prompts": ["a"], "enable_thinking": False, "template": "raw"},
            "enable_thinking for a chat",
        ),
        (
            {"prompts": [tk.Prompt("a", text="b", prefill="c")], "prefill": "d"},
            "prefill= was given",
        ),
    ):
        with pytest.raises(tk.InputError, match=words):
            tk.encode(tiny_llama, **given)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([ASKED, {**RESULT}], "message 1 is the result of .* at its place is .*None"),
        ([ASKED, ("thinking", "Hm")], "'thinking' between 'user' and ''"),
        ([("tool_calls", "[]"), ASKED], "'tool_calls' between ''"),
        ([{**ASKED, "date": "today"}], "holds 'date', which would be lost"),
        ([{**ASKED, "content": [{"type": "image_url", "image_url": "x"}]}], "type 'image_url'"),
    ],
)
def test_messages_that_say_what_they_cannot_are_refused(messages, words):
    with pytest.raises(tk.InputError, match=words):
        tk.Prompt("a", messages=messages)


def test_results_are_in_the_order_of_their_calls():
    other = {**CALL, "id": "c2"}
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL, other]}
    right = [ASKED, calling, RESULT, {**RESULT, "tool_call_id": "c2"}]
    assert [role for role, _ in tk.Prompt("a", messages=right).messages][-2:] == ["tool", "tool"]
    words = r"message 2 is the result of .*c2.*order of their calls"
    with pytest.raises(tk.InputError, match=words):
        tk.Prompt("a", messages=[ASKED, calling, right[3], RESULT])


def test_turns_are_messages_again_as_a_file_keeps_them():
    calling = {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    talk = tk.Prompt("a", messages=[ASKED, THOUGHT, ASKED, calling, RESULT, THOUGHT]).messages
    assert [role for role, _ in talk] == [
        *("user", "thinking", "assistant", "user", "assistant", "tool_calls", "tool"),
        *("thinking", "assistant"),
    ]
    kept = json.loads(json.dumps([{"role": role, "content": text} for role, text in talk]))
    assert tk.Prompt("b", messages=kept).messages == talk
    sharegpt = [{"from": "human", "value": "Go"}]
    sharegpt += [{"from": "function_call", "value": json.dumps(CALL["function"])}]
    sharegpt += [{"from": "observation", "value": "22"}, {"from": "gpt", "value": "Warm."}]
    roles = [role for role, _ in tk.Prompt("c", messages=sharegpt).messages]
    assert roles == ["user", "assistant", "tool_calls", "tool", "assistant"]


def test_a_prefill_begins_the_answer_and_is_recorded(thinking):
    runs = tk.encode(thinking, ["Is it warm?"], prefill="Sure, it", enable_thinking=False)
    messages = [{"role": "user", "content": "Is it warm?"}]
    before = rendered(thinking, messages, add_generation_prompt=True, enable_thinking=False)
    assert before.endswith("<think>\n\n</think>\n\n")
    assert whole(thinking, runs) == before + "Sure, it"
    assert said(thinking, runs, "assistant") == "Sure, it"
    assert int(runs.token.max()) == -1
    assert read(runs)["prefill"] == "Sure, it"
    assert read(runs)["template_arguments"] == {"enable_thinking": False}
    more = tk.generate(thinking, runs, max_new_tokens=2, progress=False)
    assert int(more.token.max()) == 1
    assert whole(thinking, more, slice(None, -1)) == before + "Sure, it"
    own = tk.Prompt("a/1", text="Is it warm?", prefill="Sure, it")
    same = tk.encode(thinking, [own], enable_thinking=False)
    assert same.token_id.values.tolist() == runs.token_id.values.tolist()
    assert read(same)["prefill"] == "Sure, it"
    assert (
        read(tk.encode(thinking, [own]))["prompts"]
        != read(tk.encode(thinking, [tk.Prompt("a/1", text="Is it warm?")]))["prompts"]
    )
    assert "prefill" not in read(tk.encode(thinking, ["Is it warm?"]))


def test_ids_that_were_kept_have_the_roles_of_their_text(thinking):
    tokenizer, response = thinking.tokenizer, slice(0, None)
    for text in (
        "<think>\nhm\n</think>\n\nYes.",
        "hm, a prompt opened it 😀\n</think>\n\n😀 Yes.",
        "<think>\nhm, cut off",
        "Yes.",
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        end = tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
        given = tk.encode(thinking, ["Is it?"], responses=[text]).sel(token=response)
        runs = tk.encode(thinking, ["Is it?"], responses=[[*ids, *end]]).sel(token=response)
        assert runs.role.values[0].tolist() == [*given.role.values[0].tolist(), "template"]
        raw = tk.encode(thinking, ["Is it?"], responses=[ids], template="raw")
        assert set(raw.role.values.ravel()) == {"text"}
    assert said(thinking, tk.encode(thinking, ["a"], responses=[ids]), "thinking") == ""


def test_a_thought_that_was_begun_is_gone_on_with(thinking):
    begun = tk.encode(thinking, ["Is it?"], responses=["<think>\nhm"])
    more = tk.generate(thinking, begun, max_new_tokens=3, progress=False)
    assert set(more.sel(token=slice(0, None)).role.values.ravel()) == {"thinking"}
    spoken = tk.encode(thinking, ["Is it?"], responses=["<think>\nhm</think>Yes"])
    more = tk.generate(thinking, spoken, max_new_tokens=1, progress=False)
    assert more.role.values[0, -1] == "assistant"


def test_what_prompts_have_of_their_own_can_be_read_in_the_provenance(thinking):
    asked = {name: tk.Prompt(name, text="Is it?", prefill="Sure") for name in "abc"}
    asked["b"] = tk.Prompt("b", text="Is it?", prefill="No", tools=TOOLS)
    made = read(tk.encode(thinking, [*asked.values()]))
    assert made["prefill_of_prompts"] == [
        {"prefill": "Sure", "prompts": ["a", "c"]},
        {"prefill": "No", "prompts": ["b"]},
    ]
    assert made["tools_of_prompts"] == [{"tools": TOOLS, "prompts": ["b"]}]
    assert not {"prefill", "tools"} & {*made}
    made = read(tk.encode(thinking, [asked["b"]]))
    assert (made["prefill"], made["tools"]) == ("No", TOOLS)
    assert not {"prefill_of_prompts", "tools_of_prompts"} & {*made}
