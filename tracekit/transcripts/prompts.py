"""Prompts: one text or conversation each, with labels; read from files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts import chat_template
from tracekit.transcripts.labels import missing, require_names, require_text

Label = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None
# fields of a row that are no labels
_FIELDS = frozenset({"id", "text", "messages", "group", "system", "system_prompt"})
# what changes the prompt that a model would see, in ways that are not read
_UNREAD: Mapping[str, str] = {
    "response": "Pass it to encode as responses=, or end the messages with the assistant's turn.",
    "prefill": "Pass it to encode as responses=, or end the messages with the assistant's turn.",
    "tools": "Write the tools into the system message, as the model's template would.",
    "functions": "Write the tools into the system message, as the model's template would.",
    "tool_calls": "Write the calls into the text of the assistant's turn.",
    "reasoning_content": "Write the reasoning into the text of the assistant's turn.",
}
_EXPECTED = 'Expected {"name": …, "prompts": [{"id": 1, "text": "…"}, …]}.'


@dataclass(frozen=True)
class Prompt:
    """One prompt: `text` is a single user turn, `messages` a conversation.

    `messages` are (role, content) or {"role", "content"}; a last turn of the assistant is the
    `answer`, whose tokens are the response. `system` comes before either. `id` is unique,
    `<set>/<n>`; `group` names the prompt that several rows share (the unit of analysis, `id` by
    default); `labels` become per-prompt coordinates of everything made of it.

    Errors: `ValueError` for a text and messages, for two system messages, and for a message whose
    content is not one text, or that holds more than that (tool calls, reasoning).
    """

    id: str
    text: str | None = None
    messages: Sequence[Any] = ()
    group: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    system: str | None = None

    def __post_init__(self) -> None:
        where = f"The prompt {self.id!r}"
        texts = {"id": self.id, "group": self.group, "text": self.text, "system": self.system}
        for name, value in texts.items():
            if not isinstance(value, str) and (value is not None or name in ("id", "group")):
                raise InputError(f"{where}: its {name} is {value!r}; it has to be text.")
            require_text(value or "", f"{where}: its {name}")
        if "\0" in self.id + self.group:
            raise InputError(f"{where} has a NUL in its id or group. Take it out.")
        turns = chat_template.turns(self.messages, where)
        object.__setattr__(self, "messages", turns)
        if turns and self.text is not None:
            raise InputError(f"{where} has a text and messages; give one of them.")
        if turns and turns[0][0] == "system" and self.system is not None:
            raise InputError(f"{where} has system= and a system message; give one of them.")

    @property
    def answer(self) -> str | None:
        """What the assistant says at the end of the messages, if it has the last turn."""
        last = self.messages[-1:]
        return str(last[0][1]) if last and last[0][0] == "assistant" else None

    def conversation(self, system: str | None = None) -> tuple[chat_template.Message, ...]:
        """The turns before the answer, after an optional system message."""
        turns = tuple(self.messages) or (("user", self.text or ""),)
        turns = turns if self.answer is None else turns[:-1]
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


def read_prompts(path: str | Path, limit: int | None = None, by: str = "bias") -> list[Prompt]:
    """The prompts of a JSON file `{"name", "prompts": [{"id", "text", …}]}`, ids `<stem>/<id>`.

    A row has a `text` or `messages` ({"role", "content"}), and may have a `group` and a `system`
    (or `system_prompt`). Its other fields become labels (null is none); `bias` falls back to
    `bias_description`. The set's `system_prompt` (or `system`) is for each row without a system
    message of its own, its other single values are labels of every row, and its `name` and
    `description` are for the reader. `limit` takes that many rows in all, the same number from
    every value of the label `by` (± 1).

    Errors: `FileNotFoundError`, or `ValueError` for a file that is empty or of another schema, for
    the same id twice, and for what would be lost: labels with the names that files use themselves
    (`labels.RESERVED`), and tools, responses or prefills beside the text.

    >>> from tracekit.model.embedded import datasets
    >>> len(read_prompts(datasets("prompts", "embedded_calibration.json"), limit=8))
    8
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"The prompt file {str(path)!r} does not exist. "
            f"JSON files in that folder: {', '.join(near) or 'none'}."
        )
    shared, rows = _content(path)
    prompts = [_prompt(path, index, row, shared) for index, row in enumerate(rows)]
    refuse_duplicates([prompt.id for prompt in prompts], str(path))
    return prompts if limit is None else take(prompts, limit, by)


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


def refuse_duplicates(ids: Sequence[str], where: str) -> None:
    """Errors: `ValueError` naming the ids that occur twice."""
    twice = [f"{name} ({count}x)" for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"Prompt ids in {where} must be unique; found {', '.join(twice[:3])}"
            f"{' …' if len(twice) > 3 else ''}. Rename the repeated ones."
        )


def _content(path: Path) -> tuple[Mapping[str, Any], list[Any]]:
    """What holds for every row of a file, and its rows."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InputError(
            f"The prompt file {str(path)!r} is binary, not JSON text: {error}. {_EXPECTED}"
        ) from error
    except ValueError as error:
        raise InputError(
            f"The prompt file {str(path)!r} is not JSON: {error}. JSON lines, CSV and others are "
            f"not read. {_EXPECTED}"
        ) from error
    whole = content if isinstance(content, dict) else {"prompts": content}
    rows = whole.get("prompts")
    if not isinstance(rows, list) or not rows:
        raise InputError(
            f"The prompt file {str(path)!r} holds no prompts (found: "
            f"{', '.join(map(repr, whole)) or 'nothing'}). {_EXPECTED}"
        )
    about = {"prompts", "name", "description"}
    shared = {k: v for k, v in whole.items() if k not in about and not missing(v)}
    where = f"The set {str(path)!r}"
    system = _system(shared, where)
    labels = _labels(shared, where)
    nested = [name for name, value in labels.items() if isinstance(value, list | dict)]
    if nested:
        raise InputError(
            f"{where} has {', '.join(map(repr, nested))} beside its prompts, which no row would "
            "carry. Put into the rows what belongs to them, and leave out the rest."
        )
    return {**labels, "system": system}, rows


def _prompt(path: Path, index: int, row: Any, shared: Mapping[str, Any]) -> Prompt:
    where = f"Row {index} of {str(path)!r}"
    if not isinstance(row, dict):
        raise InputError(f"{where} is {str(row)[:40]!r}, not an object. {_EXPECTED}")
    text, messages = row.get("text"), row.get("messages") or ()
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where} has the text {str(text)[:40]!r}; it has to be text.")
    if row.get("id") is None or not (text or messages):
        raise InputError(
            f"{where} has the fields {sorted(row)}; "
            "each row needs an id and a non-empty text (or messages)."
        )
    labels = _labels({**{k: v for k, v in shared.items() if k != "system"}, **row}, where)
    if "bias_description" in labels:
        labels.setdefault("bias", labels["bias_description"])
    system = _system(row, where)
    turns = chat_template.turns(messages, where)
    if system is None and not (turns and turns[0][0] == "system"):
        system = shared["system"]
    return Prompt(
        id=f"{path.stem}/{_name(row, 'id', where)}",
        text=text or None if messages else text,
        messages=turns,
        group=f"{path.stem}/{_name(row, 'group', where)}" if not missing(row.get("group")) else "",
        labels=labels,
        system=system,
    )


def _labels(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name, advice in _UNREAD.items():
        if fields.get(name):
            raise InputError(f"{where} has the field {name!r}, which is not read. {advice}")
    labels = {
        name: value
        for name, value in fields.items()
        if name not in _FIELDS | set(_UNREAD) and not missing(value)
    }
    require_names(labels, where)
    return labels


def _system(fields: Mapping[str, Any], where: str) -> str | None:
    there = {name: fields[name] for name in ("system", "system_prompt") if name in fields}
    values = [value for value in there.values() if value is not None]
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise InputError(f"{where} has {there}; give one system message, as text.")
    return values[0] if values else None


def _name(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{where} has the {name} {value!r}; it has to be a text or whole number.")
    return str(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"an object has the field {twice[0]!r} twice")
    return dict(pairs)
