"""Conversations to token ids, each with the role of the text it came from."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError

from tracekit.errors import InputError
from tracekit.transcripts.reading.messages import CALLS, Message, open_calls
from tracekit.transcripts.template_marks import Piece, pieces

# Templates that print today's date are given this one, so that a run can be repeated.
PINNED_DATE = datetime.date(2024, 7, 26)
_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
NONE: Mapping[str, Any] = MappingProxyType({})


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    arguments: Mapping[str, Any] = NONE,
    answered: bool = False,
) -> list[Piece]:
    """The chat template applied to `messages`, ready for the answer, as (text, role) pieces.

    The pieces join to exactly what the template renders; whatever is not a message's own
    content (markup, a default system prompt) has the role `template`, tool calls have `tool`. They
    are found by what the template puts around marks in place of the contents. `arguments` are the
    template's own (`enable_thinking`) and `tools`; with `answered` the last turn is the answer.

    Errors: `ValueError` when the tokenizer has no template, when the template refuses a role, has
    no such argument, or rewrites the contents so that they cannot be found in its output.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "template='chat' (the default) was asked for; this model's tokenizer has no chat "
            "template. Use template='raw' for a base model, or set tokenizer.chat_template."
        )
    _require_arguments(tokenizer, arguments)
    asking, answering = (
        functools.partial(_apply, tokenizer, arguments, end) for end in (False, True)
    )
    return pieces(answering if answered else asking, messages, answering)


def render_reply(
    tokenizer: Any,
    before: Sequence[Message],
    reply: Sequence[Message],
    arguments: Mapping[str, Any] = NONE,
) -> list[Piece]:
    """What the template makes of the turns of an answer (thoughts, words, calls), as pieces.

    Markup before the answer's first word is the thinking's.

    Errors: `ValueError` as `render`, and where the answer changes what comes before it.
    """
    start = "".join(text for text, _ in render(tokenizer, before, arguments))
    whole = render(tokenizer, (*before, *reply), arguments, answered=True)
    if not "".join(text for text, _ in whole).startswith(start):
        raise InputError(
            f"The answer {reply[0][1][:40]!r} was to follow the prompt, and the chat template ends "
            f"the prompt with {start[-30:]!r}, which is not how it begins that answer. Write the "
            "answer's content as the model writes it, thoughts and calls included."
        )
    made, at = [], 0
    for text, role in whole:
        if text[max(0, len(start) - at) :]:
            made.append((text[max(0, len(start) - at) :], role))
        at += len(text)
    while made and made[-1][1] == "template":  # what ends a turn
        made.pop()
    words = [n for n, (_, role) in enumerate(made) if role in ("assistant", "tool")]
    thinks = any(role == "thinking" for _, role in made)
    first = words[0] if words and thinks else 0
    return [(text, "thinking" if n < first else role) for n, (text, role) in enumerate(made)]


def token_pieces(tokenizer: Any, pieces: Sequence[Piece]) -> tuple[list[int], list[str]]:
    """Token ids of the joined pieces and the role of each id; exactly one BOS, if any is used.

    A token that spans two pieces takes the role of the piece it begins in.
    """
    return _single_bos(tokenizer, *plain_pieces(tokenizer, pieces))


def plain_pieces(tokenizer: Any, pieces: Sequence[Piece]) -> tuple[list[int], list[str]]:
    """`token_pieces` without a BOS, as in the middle of a text."""
    text = "".join(piece for piece, _ in pieces)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    bounds, end = [], 0
    for piece, role in pieces:
        end += len(piece)
        bounds.append((end, role))
    ids, roles, cursor = list(encoding["input_ids"]), [], 0
    for start, _ in encoding["offset_mapping"]:
        while cursor < len(bounds) - 1 and start >= bounds[cursor][0]:
            cursor += 1
        roles.append(bounds[cursor][1])
    return ids, roles


def end_of_turn(tokenizer: Any, raw: bool = False) -> list[int]:
    """The id that ends an answer, in a list: the template's mark after it, or the end of text.

    Empty where the tokenizer has neither.
    """
    special = set(tokenizer.all_special_ids)
    if not raw:
        talk = (("user", "a"), ("assistant", "b"))
        ids, roles = token_pieces(tokenizer, render(tokenizer, talk, answered=True))
        last = max(n for n, role in enumerate(roles) if role == "assistant")
        marks = [one for one in ids[last + 1 :] if one in special]
        if marks:
            return marks[:1]
    end = tokenizer.eos_token_id
    return [] if end is None else [end]


def template_hash(tokenizer: Any, template: str) -> str:
    """`raw`, or a short hash of the chat template in use (with the pinned date)."""
    if template == "raw":
        return "raw"
    content = f"{tokenizer.chat_template}|{PINNED_DATE}"
    return "chat:" + hashlib.sha256(content.encode()).hexdigest()[:16]


def _require_arguments(tokenizer: Any, arguments: Mapping[str, Any]) -> None:
    template = tokenizer.get_chat_template(tools=arguments.get("tools"))
    unknown = [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", template)]
    if unknown:
        raise InputError(
            f"The template argument {unknown[0]!r} was given; this model's chat template does not "
            "use it. Leave it out, or write what it would say into the system message."
        )


def _apply(
    tokenizer: Any,
    arguments: Mapping[str, Any],
    answered: bool,
    messages: Sequence[Message],
    calls: bool = True,
) -> str:
    template = _pinned(tokenizer.get_chat_template(tools=arguments.get("tools")))
    options = {"date_string": PINNED_DATE.strftime("%d %b %Y"), **arguments}
    options |= {"chat_template": template, "tokenize": False}
    options["add_generation_prompt"] = not answered
    try:
        try:
            return tokenizer.apply_chat_template(_objects(messages, calls), **options)
        except TypeError:  # a template that joins the arguments of calls to its own text
            return tokenizer.apply_chat_template(_objects(messages, calls, True), **options)
    except (TemplateError, TypeError) as error:
        roles = ", ".join(role for role, _ in messages)
        raise InputError(
            f"This model's chat template refuses the roles {roles}: {error}. "
            "Leave out what it refuses (such as system=), or use template='raw'."
        ) from error


def _objects(
    messages: Sequence[Message], calls: bool, as_text: bool = False
) -> list[dict[str, Any]]:
    """Turns as the messages that templates know; arguments of calls as objects or as text."""
    made: list[dict[str, Any]] = []
    thought: dict[str, Any] = {}
    for number, (role, content) in enumerate(messages):
        if role == "thinking":
            thought = {"reasoning_content": content}
        elif role == CALLS:
            made[-1] |= {"tool_calls": _calls(content, as_text)} if calls else {}
        else:
            due = open_calls(messages[:number])[:1] if role == "tool" else []
            result = [{"name": call["function"]["name"]} for call in due]
            result += [{"tool_call_id": call["id"]} for call in due if "id" in call]
            made.append(dict(ChainMap({"role": role, "content": content}, thought, *result)))
            thought = {}
    return made


def _calls(content: str, as_text: bool) -> list[Any]:
    calls: list[Any] = json.loads(content)
    for function in (call["function"] for call in calls if as_text):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return calls


def _pinned(template: str) -> str:
    # transformers lets no function of ours into a template, so the calls are replaced in its text
    fixed = _CLOCK.sub(lambda call: repr(PINNED_DATE.strftime(call[2])), template)
    if "strftime_now(" in fixed:
        raise InputError(
            "This model's chat template prints today's date in a format it computes, so a run "
            "could not be repeated. Set tokenizer.chat_template to one with a fixed date."
        )
    return fixed


def _single_bos(tokenizer: Any, ids: list[int], roles: list[str]) -> tuple[list[int], list[str]]:
    bos = tokenizer.bos_token_id
    if bos is None:
        return ids, roles
    # a template may print a BOS, and a text may begin with one
    while ids[:2] == [bos, bos]:
        ids, roles = ids[1:], roles[1:]
    adds_bos = list(tokenizer("a")["input_ids"])[:1] == [bos]
    if adds_bos and ids[:1] != [bos]:
        ids, roles = [bos, *ids], ["template", *roles]
    return (ids, ["template", *roles[1:]]) if ids[:1] == [bos] else (ids, roles)
