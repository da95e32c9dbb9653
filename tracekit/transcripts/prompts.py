"""Prompts: one text or conversation each, with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts.labels import require_text
from tracekit.transcripts.reading.messages import CALLS, Message, turns

Label = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True)
class Prompt:
    """One prompt: `text` is a single user turn, `messages` a conversation.

    `messages` are (role, content) or {"role", "content"}, as `messages.turns` reads them: thoughts
    and tool calls are turns of their own. A last turn of the assistant is the `answer`, whose
    tokens (and those of its thoughts and calls) are the response; `prefill` is how any answer
    begins, which the prompt's last tokens say. `system` comes before the messages, `tools` are the
    functions that the template is told of. `id` is unique, `<set>/<n>`; `group` names the prompt
    that several rows share (the unit of analysis, `id` by default); `labels` become per-prompt
    coordinates of everything made of it.

    Errors: `ValueError` for a text and messages, for two system messages, for tools that are no
    objects, and for a message whose content is not text, or that holds more than is read.
    """

    id: str
    text: str | None = None
    messages: Sequence[Any] = ()
    group: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    system: str | None = None
    prefill: str = ""
    tools: Sequence[Any] = ()

    def __post_init__(self) -> None:
        where = f"The prompt {self.id!r}"
        for name in ("id", "group", "text", "system", "prefill"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("id", "group")):
                raise InputError(f"{where}: its {name} is {value!r}; it has to be text.")
            require_text(value or "", f"{where}: its {name}")
        if "\0" in self.id + self.group:
            raise InputError(f"{where} has a NUL in its id or group. Take it out.")
        if isinstance(self.tools, str) or not all(isinstance(one, Mapping) for one in self.tools):
            raise InputError(
                f"{where} has the tools {str(self.tools)[:60]!r}; they are a list of objects, each "
                'a function as the template takes it: {"type": "function", "function": {…}}.'
            )
        talk = turns(self.messages, where)
        object.__setattr__(self, "messages", talk)
        if talk and self.text is not None:
            raise InputError(f"{where} has a text and messages; give one of them.")
        if talk and talk[0][0] == "system" and self.system is not None:
            raise InputError(f"{where} has system= and a system message; give one of them.")

    @property
    def answer(self) -> str | None:
        """What the assistant says at the end of the messages, if it has the last turn."""
        spoken = [content for role, content in self.reply if role == "assistant"]
        return spoken[0] if spoken else None

    @property
    def reply(self) -> tuple[Message, ...]:
        """The turns of the answer: the assistant's last, with its thoughts and tool calls."""
        roles = [role for role, _ in self.messages]
        end = len(roles) - (roles[-1:] == [CALLS])
        if roles[end - 1 : end] != ["assistant"]:
            return ()
        return tuple(self.messages[end - 1 - (roles[end - 2 : end - 1] == ["thinking"]) :])

    def conversation(self, system: str | None = None) -> tuple[Message, ...]:
        """The turns before the answer, after an optional system message."""
        turns = tuple(self.messages) or (("user", self.text or ""),)
        turns = turns[: len(turns) - len(self.reply)]
        if self.system is not None:
            turns = (("system", self.system), *turns)
        if system is None:
            return turns
        if turns[:1] and turns[0][0] == "system":
            raise InputError(
                f"system={system[:40]!r} was asked for, but the prompt {self.id!r} has a system "
                "message of its own. Leave system= out, or take that message out."
            )
        return (("system", system), *turns)


def take(prompts: Sequence[Prompt], limit: int, by: str = "bias") -> list[Prompt]:
    """The first `limit` prompts, taken in turn from every value of the label `by`."""
    if limit < 1:
        raise InputError(f"limit={limit} was asked for; it must be at least 1.")
    queues: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        queues.setdefault(repr(prompt.labels.get(by, "")), []).append(prompt)
    depth = max(len(queue) for queue in queues.values())
    turns = [queue[n] for n in range(depth) for queue in queues.values() if n < len(queue)]
    kept = {prompt.id for prompt in turns[:limit]}
    return [prompt for prompt in prompts if prompt.id in kept]


def refuse_duplicates(
    ids: Sequence[str], where: str, advice: str = "Rename the repeated ones."
) -> None:
    """Errors: `ValueError` naming the ids that occur twice."""
    twice = [f"{name} ({count}x)" for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"Prompt ids in {where} must be unique; found {', '.join(twice[:3])}"
            f"{' …' if len(twice) > 3 else ''}. {advice}"
        )
