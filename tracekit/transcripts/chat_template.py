"""Conversations to token ids, each with the role of the text it came from."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from tracekit.errors import InputError
from tracekit.transcripts.labels import require_text

Message = tuple[str, str]
ROLES = ("system", "user", "assistant", "template", "text", "pad")
MADE = ROLES[3:]  # no message has these
# Templates that print today's date are given this one, so that a run can be repeated.
PINNED_DATE = datetime.date(2024, 7, 26)
_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")


def turns(messages: Any, where: str) -> tuple[Message, ...]:
    """Messages, as pairs or as objects with `role` and `content`, as (role, content).

    A content that is a list with one text part is that text.

    Errors: `ValueError` naming the message that is anything else, or that holds more.

    >>> turns([{"role": "user", "content": "Hi"}], "The prompt")
    (('user', 'Hi'),)
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InputError(
            f"{where}: messages={str(messages)[:60]!r}; give a list of (role, content)."
        )
    return tuple(_turn(message, f"{where}, message {n}") for n, message in enumerate(messages))


def _turn(message: Any, where: str) -> Message:
    if isinstance(message, Mapping):
        more = [name for name in message if name not in ("role", "content") and message[name]]
        if more:
            raise InputError(
                f"{where} holds {', '.join(map(repr, more))}, which would be lost. "
                "Write it into the content as the model's template would, or take it out."
            )
        message = (message.get("role"), message.get("content"))
    pair = isinstance(message, Sequence) and not isinstance(message, str) and len(message) == 2
    role, content = message if pair else (None, message)
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        part = content[0]
        content = part.get("text") if set(part) == {"type", "text"} else content
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError(
            f"{where} has the role {role!r} and the content {str(content)[:60]!r}; "
            "both have to be text (images and several parts are not read)."
        )
    if not role or role in MADE:
        raise InputError(
            f"{where} has the role {role!r}, which is none, or marks what is no message. "
            f"Roles are the template's, such as {', '.join(ROLES[:3])}."
        )
    require_text(role + content, where)
    return role, content


def render(tokenizer: Any, messages: Sequence[Message]) -> list[tuple[str, str]]:
    """The chat template applied to `messages`, ready for the answer, as (text, role) pieces.

    The pieces join to exactly what the template renders; whatever is not a message's own
    content (markup, a default system prompt) has the role `template`. They are found by what the
    template puts around marks in place of the contents.

    Errors: `ValueError` when the tokenizer has no template, when the template refuses a role, or
    when it rewrites the contents so that they cannot be found in its output.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "template='chat' (the default) was asked for; this model's tokenizer has no chat "
            "template. Use template='raw' for a base model, or set tokenizer.chat_template."
        )
    whole = _apply(tokenizer, messages)
    marks = [f"Xq{index}qX" for index in range(len(messages))]
    rest = _apply(tokenizer, [(r, m) for (r, _), m in zip(messages, marks, strict=True)])
    gaps = []
    for mark in marks:
        before, found, rest = rest.partition(mark)
        gaps.append(before)
        if not found:
            raise _rewritten(messages[len(gaps) - 1])
    gaps.append(rest)
    return _filled(whole, gaps, messages)


def token_pieces(tokenizer: Any, pieces: Sequence[tuple[str, str]]) -> tuple[list[int], list[str]]:
    """Token ids of the joined pieces and the role of each id; exactly one BOS, if any is used.

    A token that spans two pieces takes the role of the piece it begins in.
    """
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
    return _single_bos(tokenizer, ids, roles)


def template_hash(tokenizer: Any, template: str) -> str:
    """`raw`, or a short hash of the chat template in use (with the pinned date)."""
    if template == "raw":
        return "raw"
    content = f"{tokenizer.chat_template}|{PINNED_DATE}"
    return "chat:" + hashlib.sha256(content.encode()).hexdigest()[:16]


def _apply(tokenizer: Any, messages: Sequence[Message]) -> str:
    try:
        return tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            chat_template=_pinned(tokenizer.get_chat_template()),
            tokenize=False,
            add_generation_prompt=True,
            date_string=PINNED_DATE.strftime("%d %b %Y"),
        )
    except TemplateError as error:
        roles = ", ".join(role for role, _ in messages)
        raise InputError(
            f"This model's chat template refuses the roles {roles}: {error}. "
            "Leave out what it refuses (such as system=), or use template='raw'."
        ) from error


def _pinned(template: str) -> str:
    # transformers lets no function of ours into a template, so the calls are replaced in its text
    fixed = _CLOCK.sub(lambda call: repr(PINNED_DATE.strftime(call[2])), template)
    if "strftime_now(" in fixed:
        raise InputError(
            "This model's chat template prints today's date in a format it computes, so a run "
            "could not be repeated. Set tokenizer.chat_template to one with a fixed date."
        )
    return fixed


def _filled(whole: str, gaps: Sequence[str], messages: Sequence[Message]) -> list[tuple[str, str]]:
    pieces, at = [(gaps[0], "template")], len(gaps[0])
    if not whole.startswith(gaps[0]):
        raise _rewritten(messages[0])
    for message, gap in zip(messages, gaps[1:], strict=True):
        role, content = message
        # templates trim what they like: the role, all of it, or one side
        forms = (content, content.strip(), content.lstrip(), content.rstrip())
        fitting = [form for form in forms if whole.startswith(form + gap, at)]
        if not fitting:
            raise _rewritten(message)
        pieces += [(fitting[0], role), (gap, "template")]
        at += len(fitting[0]) + len(gap)
    if at != len(whole):
        raise _rewritten(messages[-1])
    return [(text, role) for text, role in pieces if text]


def _rewritten(message: Message) -> InputError:
    role, content = message
    return InputError(
        f"The chat template rewrites the {role} message {content[:60]!r}, so its tokens cannot be "
        "told from the template's. Use template='raw' with the rendered text."
    )


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
