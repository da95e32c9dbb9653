"""Rows with their answers, tools and system messages: where these stand is guessed and said."""

from __future__ import annotations

import json

import pytest

import tracekit as tk

ASKED = {"role": "user", "content": "Is it?"}
SAID = {"role": "assistant", "content": "Yes."}
TALK = (("user", "Is it?"), ("assistant", "Yes."))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [ASKED], "response": "Yes."}, "response='response'; labels: none"),
        ({"id": 1, "messages": [["user", "Is it?"]], "output": "Yes."}, "response='output'"),
        ({"id": 1, "messages": [ASKED], "completion": "Yes."}, "id='id', response='completion'"),
        ({"prompt": [ASKED], "completion": [SAID]}, "messages='prompt', .*response='completion'"),
        ({"prompt": json.dumps([ASKED]), "completion": json.dumps([SAID])}, "messages='prompt'"),
        ({"prompt": "Is it?", "completion": [SAID]}, "text='prompt'.*response='completion'"),
        ({"id": 1, "text": "Is it?", "output": "Yes."}, "text='text', id='id', response='output'"),
    ],
)
def test_an_answer_in_a_field_of_its_own_is_the_response(row, said):
    with pytest.warns(UserWarning, match=said):
        (prompt,) = tk.prompts([row])
    assert prompt.messages == TALK
    assert prompt.answer == "Yes."
    with pytest.warns(UserWarning, match="is read with"):
        (other,) = tk.prompts([row], response=False)
    assert other.answer is None


def test_beside_an_answer_another_is_a_label_that_is_said():
    rows = [{"messages": [ASKED, SAID], "response": "No."}, {"messages": [ASKED], "response": ""}]
    with pytest.warns(UserWarning, match=r"labels: my_response \(from 'response'\)"):
        one, other = tk.prompts(rows)
    assert (one.answer, one.labels["my_response"]) == ("Yes.", "No.")
    assert other.answer is None


def test_what_a_text_of_the_own_form_has_beside_it_is_said():
    row = {"id": 1, "text": "Owls hoot.", "question": "Who hoots?"}
    with pytest.warns(UserWarning, match="text='text', id='id'; labels: question"):
        (prompt,) = tk.prompts([row])
    assert (prompt.text, prompt.labels) == ("Owls hoot.", {"question": "Who hoots?"})
    with pytest.warns(UserWarning, match="messages='messages', text='text', id='id', response"):
        one, other = tk.prompts([{**row, "output": "Hm."}, {"id": 2, "messages": [ASKED]}])
    assert one.messages == (("user", "Owls hoot."), ("assistant", "Hm."))
    assert other.messages == TALK[:1]


def test_an_answer_that_is_a_list_in_text_stays_text():
    with pytest.warns(UserWarning, match="is read with"):
        (prompt,) = tk.prompts([{"prompt": "List it.", "completion": '[{"a": 1}]'}])
    assert prompt.answer == '[{"a": 1}]'


def test_a_weight_of_0_is_said_not_to_be_read():
    with pytest.warns(UserWarning, match="not read: the messages' weight"):
        tk.prompts([{"id": 1, "messages": [ASKED, {**SAID, "weight": 0}]}])
    with pytest.raises(tk.InputError, match="'weight', which would be lost"):
        tk.Prompt("a", messages=[ASKED, {**SAID, "weight": 0}])
    tk.Prompt("a", messages=[ASKED, {**SAID, "toxic": False, "date": None, "tags": []}])


def test_tools_may_be_json_text_and_system_messages_parts():
    tools = [{"type": "function", "function": {"name": "weather"}}]
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]
    for text, expected in ((json.dumps(tools), tools), ("[]", []), (" [ ] ", []), ("", [])):
        row = {"id": 1, "messages": [ASKED], "tools": text, "system": parts}
        (prompt,) = tk.prompts([row])
        assert list(prompt.tools) == expected
        assert prompt.system == "Be kind."
    with pytest.raises(tk.InputError, match=r"tools '\{'; they are a list"):
        tk.prompts([{**row, "tools": "{"}])
    with pytest.raises(tk.InputError, match="part of the type 'image'"):
        tk.prompts([{**row, "system": [{"type": "image"}]}])
