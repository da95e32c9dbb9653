"""Conversations to token ids, each with the role of the text it came from."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any

Message = tuple[str, str]
ROLES = ("system", "user", "assistant", "template", "text", "pad")
# Templates that print today's date are given this one, so that a run can be repeated.
PINNED_DATE = datetime.date(2024, 7, 26)


def render(tokenizer: Any, messages: Sequence[Message]) -> list[tuple[str, str]]:
    """The chat template applied to `messages`, ready for the answer, as (text, role) pieces.

    The pieces join to exactly what the template renders; whatever is not a message's own
    content (markup, a default system prompt) has the role `template`.

    Errors: `ValueError` when the tokenizer has no template, or when the template rewrites the
    contents so that they cannot be found in its output.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "template='chat' was asked for, but this model's tokenizer has no chat template. "
            "Use template='raw' for a base model, or set tokenizer.chat_template."
        )
    whole = _apply(tokenizer, messages)
    for clean in (str, str.strip):
        contents = [clean(content) for _, content in messages]
        pieces = _between(_skeleton(tokenizer, messages), contents, messages)
        if pieces is not None and "".join(text for text, _ in pieces) == whole:
            return pieces
    return _search(whole, messages)


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
    return tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        tokenize=False,
        add_generation_prompt=True,
        date_string=PINNED_DATE.strftime("%d %b %Y"),
        strftime_now=PINNED_DATE.strftime,
    )


def _skeleton(tokenizer: Any, messages: Sequence[Message]) -> str:
    marked = [(role, f"Xq{index}qX") for index, (role, _) in enumerate(messages)]
    return _apply(tokenizer, marked)


def _between(
    skeleton: str, contents: Sequence[str], messages: Sequence[Message]
) -> list[tuple[str, str]] | None:
    pieces, rest = [], skeleton
    for index, (content, (role, _)) in enumerate(zip(contents, messages, strict=True)):
        before, mark, rest = rest.partition(f"Xq{index}qX")
        if not mark:
            return None
        pieces += [(before, "template"), (content, role)]
    return [(text, role) for text, role in [*pieces, (rest, "template")] if text]


def _search(whole: str, messages: Sequence[Message]) -> list[tuple[str, str]]:
    pieces, rest = [], whole
    for role, content in messages:
        before, found, rest = rest.partition(content.strip())
        if not found:
            raise ValueError(
                f"The chat template rewrites the {role} message {content[:60]!r}, so its tokens "
                "cannot be told from the template's. Use template='raw' with the rendered text."
            )
        pieces += [(before, "template"), (found, role)]
    return [(text, role) for text, role in [*pieces, (rest, "template")] if text]


def _single_bos(tokenizer: Any, ids: list[int], roles: list[str]) -> tuple[list[int], list[str]]:
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
    if not adds_bos:
        return ids, roles
    while ids[:2] == [bos, bos]:
        ids, roles = ids[1:], roles[1:]
    if ids[:1] != [bos]:
        ids, roles = [bos, *ids], ["template", *roles]
    return ids, ["template", *roles[1:]]
