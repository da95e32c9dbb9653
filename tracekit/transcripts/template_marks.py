"""Where a chat template puts the contents of messages: told by marks in their place."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracekit.errors import InputError
from tracekit.transcripts.reading.messages import CALLS, Message

Piece = tuple[str, str]  # text, role
Apply = Callable[..., str]  # of messages; with calls=False their tool calls are left out
# what a model thinks before it answers, in the markup of its own words
THOUGHT = re.compile(
    r"(\s*(?:<think(?:ing)?>|\[THINK\])?\s*)(.*?)(\s*(?:</think(?:ing)?>|\[/THINK\])\s*)", re.DOTALL
)


@dataclass(frozen=True)
class Slot:
    """A text that a template is to render, the mark in its place, and the message it is of."""

    mark: str
    text: str
    role: str
    message: Message


def pieces(apply: Apply, messages: Sequence[Message], answering: Apply) -> list[Piece]:
    """What a template makes of messages, as (text, role) pieces that join to exactly that.

    `apply` renders messages, `answering` those that end with an answer: a template that shows what
    an assistant thinks last may leave out what it thought before, which is said.

    Errors: `ValueError` for a content that cannot be found in the output.
    """
    stand_ins, slots = _marked(messages)
    rest = apply(stand_ins)
    shown = [slot for slot in slots if slot.mark in rest]
    _refuse_lost([slot for slot in slots if slot not in shown], answering)
    gaps = _gaps(rest, shown)
    parts: list[list[Piece]] = [[(gap, "template")] for gap in gaps]
    if any(role == CALLS for role, _ in messages):
        bare = _gaps(apply(stand_ins, calls=False), shown)
        parts = [_around_calls(gap, less) for gap, less in zip(gaps, bare, strict=True)]
        _refuse_lost_calls(messages, parts)
    return [(text, role) for text, role in _filled(apply(messages), parts, shown) if text]


def spoken_pieces(text: str) -> list[Piece]:
    """What a model itself says: its thinking, tags and all, apart from its answer.

    >>> spoken_pieces("<think>Hm.</think>Yes.")
    [('<think>Hm.</think>', 'thinking'), ('Yes.', 'assistant')]
    """
    thought = THOUGHT.match(text)
    end = thought.end() if thought else 0
    if not thought and re.match(r"\s*(<think(ing)?>|\[THINK\])", text):
        end = len(text)  # cut off before it answered
    parts = [(text[:end], "thinking"), (text[end:], "assistant")]
    return [part for part in parts if part[0]]


def _marked(messages: Sequence[Message]) -> tuple[list[Message], list[Slot]]:
    stand_ins, slots = [], []
    following = [*messages[1:], ("", "")]
    for index, ((role, content), after) in enumerate(zip(messages, following, strict=True)):
        thought = THOUGHT.match(content) if role == "assistant" else None
        # a template may ask whether a turn that calls says anything
        silent = role == "assistant" and not content and after[0] == CALLS
        if role == CALLS or silent:
            stand_ins.append((role, content))
            continue
        own = Slot(f"Xq{index}qX", content, role, (role, content))
        mark = own.mark
        if thought:
            inner = Slot(f"Xt{index}tX", thought[2], "thinking", own.message)
            own = Slot(own.mark, content[thought.end() :], role, own.message)
            mark = f"{thought[1]}{inner.mark}{thought[3]}{own.mark}"
            slots.append(inner)
        stand_ins.append((role, mark))
        slots.append(own)
    return stand_ins, slots


def _refuse_lost(lost: Sequence[Slot], answering: Apply) -> None:
    for slot in lost:
        if slot.role != "thinking" or not _shows_last(slot, answering):
            raise rewritten(slot.message)
    if lost:
        warnings.warn(
            "The chat template leaves out what the assistant thought in an earlier turn "
            f"({lost[0].text[:40]!r}), as it does when the model talks. To keep it, write it into "
            "the content in other words than the template's.",
            stacklevel=6,
        )


def _shows_last(slot: Slot, answering: Apply) -> bool:
    """Whether the template shows such thinking in a turn that is the last."""
    talk = [("user", "a"), (slot.message[0], slot.message[1])]
    talk += [("assistant", "b")] if slot.message[0] == "thinking" else []
    stand_ins, slots = _marked(talk)
    return all(one.mark in answering(stand_ins) for one in slots if one.role == "thinking")


def _gaps(rendered: str, slots: Sequence[Slot]) -> list[str]:
    """What is before, between and after the marks."""
    gaps = []
    for slot in slots:
        before, mark, rendered = rendered.partition(slot.mark)
        gaps.append(before)
        if not mark:
            raise rewritten(slot.message)
    return [*gaps, rendered]


def _around_calls(gap: str, bare: str) -> list[Piece]:
    """A gap as markup, calls, markup, by the same gap of the messages without their calls."""
    after = _alike(gap[::-1], bare[::-1])
    before = _alike(gap, bare[: len(bare) - after])
    if before + after != len(bare):
        raise InputError(
            f"The chat template writes {bare[:60]!r} otherwise where a turn has tool calls "
            f"({gap[:60]!r}), so their tokens cannot be told from the template's. Use "
            "template='raw' with the rendered text."
        )
    calls = gap[before : len(gap) - after]
    return [(gap[:before], "template"), (calls, "tool"), (gap[len(gap) - after :], "template")]


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)


def _refuse_lost_calls(messages: Sequence[Message], parts: Sequence[Sequence[Piece]]) -> None:
    shown = "".join(text for text, role in itertools.chain(*parts) if role == "tool")
    names = [call["function"]["name"] for r, c in messages if r == CALLS for call in json.loads(c)]
    lost = [name for name in names if name not in shown]
    if lost:
        raise InputError(
            f"The call of the tool {lost[0]!r} was to be rendered; this model's chat template "
            "leaves tool calls out. Write the call into the assistant's content, as the model "
            "writes it."
        )


def _filled(whole: str, parts: Sequence[list[Piece]], slots: Sequence[Slot]) -> list[Piece]:
    gaps = ["".join(text for text, _ in part) for part in parts]
    made, at = list(parts[0]), len(gaps[0])
    if not whole.startswith(gaps[0]):
        raise rewritten(slots[0].message)
    for slot, part, gap in zip(slots, parts[1:], gaps[1:], strict=True):
        fitting = [form for form in _forms(slot.text) if whole.startswith(form + gap, at)]
        if not fitting:
            raise rewritten(slot.message)
        made += [(fitting[0], slot.role), *part]
        at += len(fitting[0]) + len(gap)
    if at != len(whole):
        raise rewritten(slots[-1].message)
    return made


def _forms(text: str) -> tuple[str, ...]:
    # templates trim what they like, the role, all of it, or one side, and quote what a tool says
    trimmed = (text, text.strip(), text.lstrip(), text.rstrip())
    return (*trimmed, json.dumps(text, ensure_ascii=False)[1:-1])


def rewritten(message: Message) -> InputError:
    """The error for a content that a template does not show as it is."""
    role, content = message
    if role == "thinking":
        return InputError(
            f"What the assistant thought ({content[:40]!r}) was to be rendered; this model's chat "
            "template leaves it out. Write it into the assistant's content, as the model writes it."
        )
    return InputError(
        f"The chat template rewrites the {role} message {content[:60]!r}, so its tokens cannot be "
        "told from the template's. Use template='raw' with the rendered text."
    )
