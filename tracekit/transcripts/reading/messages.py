"""Messages of a conversation, in the ways their sources write them, as (role, content) pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts.labels import require_text

Message = tuple[str, str]
ROLES = ("system", "user", "assistant", "thinking", "tool", "template", "text", "pad")
MADE = ROLES[5:]  # no message has these
CALLS = "tool_calls"  # the turn after the assistant's that holds the JSON of its calls
# ShareGPT's words, OpenAssistant's, Gemini's and OpenAI's former ones
_NAMES = {
    **dict.fromkeys(("human", "prompter", "Human"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "Assistant"), "assistant"),
    **dict.fromkeys(("observation", "function", "tool_response"), "tool"),
    "function_call": CALLS,
}
_FIELDS = ("role", "content", "from", "value", CALLS, "function_call", "name", "tool_call_id")
_REASONING = ("reasoning_content", "reasoning", "thinking")
# what a model would see beside the text
_SEEN = ("images", "image", "audio", "video", "videos", "documents", "files", "attachments")
_TEXTS = ("text", "input_text", "output_text")


def turns(messages: Any, where: str, unread: set[str] | None = None) -> tuple[Message, ...]:
    """Messages, as pairs or as objects with `role` and `content`, as (role, content).

    ShareGPT's `from` and `value` are read too; the text parts of a content are joined as they are.
    What the assistant thought (`reasoning_content`, a part of that type) is a turn "thinking"
    before its own, its tool calls one of JSON, "tool_calls", after it; results have the role
    "tool". Fields that say something about a message (a date) are refused, or go into `unread`.

    Errors: `ValueError` naming the message that is anything else, or that holds more.

    >>> turns([{"role": "user", "content": "Hi"}], "The prompt")
    (('user', 'Hi'),)
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InputError(
            f"{where}: messages={str(messages)[:60]!r}; give a list of (role, content)."
        )
    pairs: list[Message] = []
    for number, message in enumerate(messages):
        place = f"{where}, message {number}"
        if isinstance(message, Mapping):
            pairs += _of_fields(message, place, unread, open_calls(pairs))
        else:
            pair = isinstance(message, Sequence) and not isinstance(message, str)
            role, content = message if pair and len(message) == 2 else (None, message)
            pairs.append(_checked(role, content, place))
    _require_order(pairs, where)
    return tuple(pairs)


def spoken(message: Mapping[str, Any]) -> bool:
    """Whether an object looks like a message.

    >>> spoken({"from": "human", "value": "Hi"})
    True
    """
    return bool({"role", "from"} & set(message)) and bool({"content", "value"} & set(message))


def is_talk(value: Any) -> bool:
    """Whether a value is a list of messages, or the JSON text of one.

    >>> is_talk('[{"role": "user", "content": "Hi"}]'), is_talk("Hi")
    (True, False)
    """
    value = parsed(value)
    listed = isinstance(value, list) and bool(value)
    return listed and all(isinstance(one, Mapping) and spoken(one) for one in value)


def parsed(value: Any) -> Any:
    """A list of objects that a table keeps as JSON text; anything else as it is.

    >>> parsed('[{"role": "user", "content": "Hi"}]'), parsed("[Hi]")
    ([{'role': 'user', 'content': 'Hi'}], '[Hi]')
    """
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def whole_text(content: Any, where: str) -> Any:
    """The joined text of a content's parts; what is no list of parts as it is.

    Errors: `ValueError` for a part that is no text.

    >>> whole_text([{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}], "It")
    'Be kind.'
    """
    parts = isinstance(content, list) and all(isinstance(one, Mapping) for one in content)
    return _of_parts(content, where, [], [], []) if content and parts else content


def open_calls(before: Sequence[Message]) -> list[Any]:
    """The tool calls that the last turns made and that have no result yet, in order.

    >>> open_calls([("assistant", ""), ("tool_calls", '[{"id": "a"}, {"id": "b"}]'), ("tool", "1")])
    [{'id': 'b'}]
    """
    for results, (role, content) in enumerate(reversed(before)):
        if role == CALLS:
            return list(json.loads(content))[results:]
        if role != "tool":
            break
    return []


def _of_fields(
    message: Mapping[str, Any], where: str, unread: set[str] | None, calls: Sequence[Any]
) -> list[Message]:
    role = message.get("role", message.get("from"))
    role = _NAMES.get(role, role) if isinstance(role, str) else role
    content = message.get("content", message.get("value"))
    thoughts: list[Any] = []
    for thought in (message[name] for name in _REASONING if message.get(name)):
        thoughts += [thought] if thought not in thoughts else []  # vLLM says it under two names
    said = list(message.get(CALLS) or [])
    said += [message["function_call"]] if message.get("function_call") else []
    _refuse_more(message, role, where, unread)
    results: list[Message] = []
    if role == CALLS:  # the calls are the content: a turn's own, or ShareGPT's, which has no turn
        calls_said = _json(content, where)
        said = calls_said if isinstance(calls_said, list) else [calls_said]
        if message.get("role") == CALLS:
            return [_calls(said, where)]
        role, content = "assistant", ""
    if isinstance(content, list):
        content = _of_parts(content, where, thoughts, said, results) if content else None
    if content is None and said:
        content = ""
    if role == "tool":
        _require_call(message, calls, where)
    made = [("thinking", _text(thought, where)) for thought in thoughts]
    # a turn that held nothing but results has no words of its own
    made += results if results and not content else [*results, _checked(role, content, where)]
    return [*made, _calls(said, where)] if said else made


def _calls(said: Sequence[Any], where: str) -> Message:
    return CALLS, json.dumps([_call(one, where) for one in said], ensure_ascii=False)


def _of_parts(
    parts: Sequence[Any], where: str, thoughts: list[Any], calls: list[Any], results: list[Message]
) -> str:
    """The text of a content's parts; what the others hold goes into the lists."""
    texts = []
    for part in parts:
        part = part if isinstance(part, Mapping) else {"type": "", "is": part}
        kind = part.get("type", "text")
        if kind in _TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            thoughts.append(part.get(kind, part.get("text")))
        elif kind in ("tool_use", "tool_call"):
            calls.append(part)
        elif kind == "tool_result":
            inner = part.get("content")
            inner = _of_parts(inner, where, [], [], []) if isinstance(inner, list) else inner
            results.append(("tool", _text(inner, where)))
        else:
            raise InputError(
                f"{where} has a part of the type {kind!r} ({str(part)[:40]!r}); text, thinking and "
                "tool parts are read, images and sounds are not. Take it out, or describe it in "
                "words."
            )
    return "".join(texts)


def _refuse_more(
    message: Mapping[str, Any], role: Any, where: str, unread: set[str] | None
) -> None:
    # a weight of 0 says something
    given = [str(name) for name, one in message.items() if one or (one == 0 and one is not False)]
    more = [name for name in given if name not in (*_FIELDS, *_REASONING)]
    lost = [name for name in more if name in _SEEN or unread is None]
    lost += [name for name in ("name", "tool_call_id") if name in given and role != "tool"]
    if lost:
        raise InputError(
            f"{where} holds {', '.join(map(repr, lost))}, which would be lost. "
            "Write it into the content as the model's template would, or take it out."
        )
    if unread is not None:
        unread.update(more)


def _require_call(message: Mapping[str, Any], calls: Sequence[Any], where: str) -> None:
    """A result says which call it is of; templates are told by their order."""
    told = {name: message[name] for name in ("name", "tool_call_id") if message.get(name)}
    call = calls[0] if calls else {}
    function = call.get("function", {}).get("name")
    due = {"name": function, "tool_call_id": call.get("id")}
    wrong = [name for name, value in told.items() if value != due[name]]
    if wrong:
        raise InputError(
            f"{where} is the result of {told}, and the call at its place is {due}. "
            "Give the results in the order of their calls, or take these fields out."
        )


def _call(call: Any, where: str) -> dict[str, Any]:
    """A call as templates take it: the function's name, and its arguments as an object."""
    inner = call.get("function", call) if isinstance(call, Mapping) else {}
    name, given = inner.get("name"), inner.get("arguments", inner.get("input", {}))
    if isinstance(given, str):
        given = _json(given, where)
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise InputError(
            f"{where} has the tool call {str(call)[:60]!r}; a call is "
            '{"function": {"name": …, "arguments": {…}}}. Write it so.'
        )
    ids = {"id": call["id"]} if call.get("id") else {}
    return {**ids, "type": "function", "function": {"name": name, "arguments": dict(given)}}


def _json(text: Any, where: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where} has a tool call whose arguments are {str(text)[:60]!r}, which is not JSON "
            f"({error}). Write them as an object."
        ) from error


def _checked(role: Any, content: Any, where: str) -> Message:
    if isinstance(content, list) and content:
        content = _of_parts(content, where, [], [], [])
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError(
            f"{where} has the role {role!r} and the content {str(content)[:60]!r}; "
            "both have to be text (images are not read)."
        )
    if not role or role in MADE:
        raise InputError(
            f"{where} has the role {role!r}, which is none, or marks what is no message. "
            f"Roles are the template's, such as {', '.join(ROLES[:3])}."
        )
    require_text(role + content, where)
    return role, content


def _text(value: Any, where: str) -> str:
    return _checked("tool", value, where)[1]


def _require_order(pairs: Sequence[Message], where: str) -> None:
    roles = [role for role, _ in pairs]
    for role, before, after in zip(roles, ["", *roles], [*roles[1:], ""], strict=False):
        if (role == "thinking" and after != "assistant") or (
            role == CALLS and before != "assistant"
        ):
            raise InputError(
                f"{where} has a turn {role!r} between {before!r} and {after!r}; thinking stands "
                "before the assistant's turn, and tool_calls after it. Give it that turn, empty if "
                "it says nothing."
            )
