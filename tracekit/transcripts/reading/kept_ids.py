"""Ids that an engine or a generation kept: held against their text, each with its role."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts.reading.answer_files import Response
from tracekit.transcripts.reading.messages import CALLS
from tracekit.transcripts.template_marks import THOUGHT, spoken_pieces


def spoken_roles(tokenizer: Any, ids: Sequence[int], raw: bool) -> list[str]:
    """The roles of ids that a model said: its thoughts, its words, and what ends its turn.

    A thought is where `spoken_pieces` finds it in their text, tags and all.
    """
    special = set(tokenizer.all_special_ids)
    roles = ["template" if one in special else "text" if raw else "assistant" for one in ids]
    text = "" if raw else tokenizer.decode(ids)
    thought = _thought(text)
    if thought:
        count = _tokens_before(tokenizer, ids, thought)
        if not THOUGHT.match(text):  # cut off in the thought: what ended it is no part of it
            count = min(count, _said(ids, special))
        roles[:count] = ["thinking"] * count
    return roles


def kept(tokenizer: Any, name: str, response: Response, raw: bool) -> tuple[list[int], list[str]]:
    """Ids as they were given, if they stand for what was given with them, and their roles.

    Errors: `ValueError` for ids that the tokenizer lacks, and for a text, a thought or a call that
    the ids do not say.
    """
    ids = list(response.ids or ())
    size = len(tokenizer)
    strange = [one for one in ids if one >= size]
    if strange:
        raise InputError(
            f"The response to {name!r} has the id {strange[0]}; this model's tokenizer has {size} "
            "ids. They are another model's: give the text, or load that model."
        )
    roles = spoken_roles(tokenizer, ids, raw)
    if response.turns:
        own = _roles_of_turns(tokenizer, name, ids, dict(response.turns), roles)
        return ids, roles if raw else own
    forms = [tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False)]
    # a server trims, and leaves out bytes of a character that was cut
    if response.text and _trimmed(response.text) not in [_trimmed(form) for form in forms]:
        raise _of_another(name, forms[0], "text", response.text)
    return ids, roles


def _roles_of_turns(
    tokenizer: Any, name: str, ids: Sequence[int], turns: dict[str, str], roles: Sequence[str]
) -> list[str]:
    """The roles of ids that stand for a thought, words and calls, in that order."""
    special = set(tokenizer.all_special_ids)
    said = ids[: _said(ids, special)]
    text = tokenizer.decode(said).rstrip("\ufffd").rstrip()
    words, thought = (_trimmed(turns.get(role, "")) for role in ("assistant", "thinking"))
    at = text.find(thought)
    if at < 0:
        raise _of_another(name, text, "thought", thought)
    at = max(at + len(thought) if thought else 0, _thought(text))
    start = text.find(words, at) if CALLS in turns else len(text) - len(words)
    if start < at or not text.startswith(words, start):
        raise _of_another(name, text[at:], "text", words)
    end = start + len(words)
    lost = [one for one in _called(turns.get(CALLS, "[]")) if not _says(text[end:], one)]
    if lost:
        raise _of_another(name, text, "tool call's", lost[0])
    made = list(roles)
    before, after = (_tokens_before(tokenizer, ids, place) for place in (start, end))
    if thought:
        made[:before] = ["thinking"] * before
    if CALLS in turns:
        made[after : len(said)] = ["tool"] * (len(said) - after)
    return made


def _called(calls: str) -> Iterator[str]:
    """The names of calls, and the texts among their arguments."""
    for function in (call["function"] for call in json.loads(calls)):
        yield function["name"]
        yield from (one for one in function["arguments"].values() if isinstance(one, str))


def _says(text: str, word: str) -> bool:
    quoted = (json.dumps(word, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return any(form in text for form in (word, *quoted))


def _thought(text: str) -> int:
    """How many characters of a text are its thought."""
    return sum(len(piece) for piece, role in spoken_pieces(text) if role == "thinking")


def _said(ids: Sequence[int], special: set[int]) -> int:
    """How many ids there are without the special ones at the end."""
    return max((n + 1 for n, one in enumerate(ids) if one not in special), default=0)


def _tokens_before(tokenizer: Any, ids: Sequence[int], character: int) -> int:
    """How many tokens begin before a character of the ids' text."""

    def begins(number: int) -> int:
        # a character of several tokens is begun by the first of them
        return len(tokenizer.decode(ids[:number]).rstrip("\ufffd"))

    return bisect.bisect_left(range(len(ids)), character, key=begins)


def _trimmed(text: str) -> str:
    return text.rstrip("\ufffd").strip()


def _of_another(name: str, ids_say: str, what: str, text: str) -> InputError:
    return InputError(
        f"The response to {name!r} has ids that are {ids_say[:40]!r} to this model's "
        f"tokenizer, and the {what} {text[:40]!r}. They are of another answer, or another "
        "model's: give the text alone, or load that model."
    )
