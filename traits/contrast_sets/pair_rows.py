"""Rows with two sides, or with a text and its label, as prompts: what is asked and what is said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tracekit.errors import InputError
from tracekit.storage.row_files import typed
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.messages import Message, is_talk, parsed, turns, whole_text
from traits.contrast_sets.pair_fields import PairFields

_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def two_sided(
    name: str, rows: Sequence[Mapping[str, Any]], fields: PairFields, system: Any, where: str
) -> list[Prompt]:
    """Both sides of every row, all positives first; `system` is for rows without their own.

    Errors: `ValueError` for a side that is no text and no messages, and for sides that are alike.
    """
    labels = _labels(rows, fields, False)
    made: list[Prompt] = []
    for side, field in zip(("positive", "negative"), fields.sides or (), strict=True):
        for n, row in enumerate(rows):
            said = _said(row, field, fields, system, f"{where}, row {n}, {field}")
            own = {"label": int(side == "positive"), **labels[n]}
            made.append(Prompt(f"{name}/{side}/{n}", group=f"{name}/{n}", labels=own, **said))
    same = [one.group for one, other in _halves(made) if _spoken(one) == _spoken(other)]
    if same:
        raise InputError(
            f"{where} has the same text on both sides of {len(same)} pairs (first: {same[0]!r}). "
            "A pair must differ; rewrite or delete it."
        )
    return made


def labelled(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    fields: PairFields,
    system: Any,
    where: str,
    all_text: bool,
) -> list[Prompt]:
    """Texts or answers with a label; those of one row (RepE's form) or of one group are a pair.

    Errors: `ValueError` for a text that is none, and a label that is not 1 or 0.
    """
    text, label = str(fields.text), str(fields.label)
    rest, groups = _labels(rows, fields, all_text), _groups(rows, fields, where)
    made = []
    for n, row in enumerate(rows):
        texts, kinds = row.get(text), row.get(label)
        twins = isinstance(texts, list) and isinstance(kinds, list) and len(texts) == len(kinds)
        both = list(zip(texts or [], kinds or [], strict=True)) if twins else [(texts, kinds)]
        for k, (one, truth) in enumerate(both):
            place = f"{where}, row {n}"
            if not fields.asked and (not isinstance(one, str) or not one.strip()):
                raise InputError(f"{place} has the {text} {one!r}; it has to be text. Write it.")
            row_id = f"{name}/{n}-{k}" if twins else f"{name}/{n}"
            own = {"label": _truth(truth, label, place), **rest[n]}
            said = _said({**row, text: one}, text, fields, system, f"{place}, {text}")
            made.append(Prompt(row_id, group=f"{name}/{groups[n]}", labels=own, **said))
    return made


def _said(
    row: Mapping[str, Any], field: str, fields: PairFields, shared: Any, where: str
) -> dict[str, Any]:
    """The text or the messages of one side, and the system message before them."""
    said = _joined(row.get(fields.asked or ""), row.get(field), where)
    talk: Sequence[Message] = said.get("messages", ())
    own = whole_text(row.get(fields.system or ""), where) or None
    first = talk[0][1] if talk and talk[0][0] == "system" else None
    system = own or (shared if first is None else None)
    if system is not None and not isinstance(system, str):
        raise InputError(f"{where} has the system message {system!r}; give one, as text.")
    return said if system in (None, first) else {**said, "system": system}


def _joined(question: Any, answer: Any, where: str) -> dict[str, Any]:
    """What is asked and what is answered, as one conversation, or a text alone."""
    asked, said = _talk(question, where), _talk(answer, where)
    if isinstance(said, str):
        if not said.strip():
            raise InputError(f"{where} is {answer!r}; each side is a text or messages. Write it.")
        if not asked:
            return {"text": said}
        said = (("assistant", said.strip()),)
    if isinstance(asked, str):
        asked = (("user", asked),) if asked else ()
    if said[0][0] not in ("user", "system"):
        return {"messages": (*asked, *said)}
    there = [(role, content.strip()) for role, content in said]
    lost = [content for role, content in asked if (role, content.strip()) not in there]
    if lost:
        raise InputError(
            f"{where} is a conversation that begins with {said[0][1][:40]!r}, and beside it stands "
            f"{lost[0][:40]!r}, which is not in it. Write this into the conversation, or take the "
            "field out."
        )
    return {"messages": said}


def _talk(value: Any, where: str) -> str | tuple[Message, ...]:
    """A text, or the turns of messages or of hh-rlhf's talk in one text."""
    value = parsed(value) if is_talk(value) else value
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        raise InputError(
            f"{where} is a list of {len(value)} texts ({str(value)[:40]}); each side is one text, "
            "or messages of a role and a content. Choose one, or give each a row of its own."
        )
    if isinstance(value, list) and value:
        return turns(value, where)
    if value in (None, "", []):
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where} is {value!r}; each side is a text or messages. Write it.")
    if not _TURN.match(value):
        return value
    parts = _TURN.split(value)[1:]
    pairs = [(_ROLES[who], text.strip()) for who, text in zip(parts[::2], parts[1::2], strict=True)]
    return tuple(pairs[:-1] if pairs[-1] == ("assistant", "") else pairs)


def _truth(value: Any, field: str, where: str) -> int:
    word = str(value).strip().lower()
    if word not in ("0", "1", "true", "false", "1.0", "0.0"):
        raise InputError(
            f"{where} has the {field} {value!r}; it has to be 1 or 0, true or false. Select the "
            "rows of two kinds and label them so."
        )
    return int(word in ("1", "true", "1.0"))


def _labels(
    rows: Sequence[Mapping[str, Any]], fields: PairFields, all_text: bool
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{} for _ in rows]
    for field, name in fields.labels().items():
        column = [row.get(field) for row in rows]
        for labels, value in zip(made, typed(column) if all_text else column, strict=True):
            labels.update({} if value is None else {name: value})
    return made


def _groups(rows: Sequence[Mapping[str, Any]], fields: PairFields, where: str) -> list[Any]:
    """What the rows' groups are called: by the file, or each by its number."""
    if not fields.group:
        return list(range(len(rows)))
    groups = [row.get(fields.group) for row in rows]
    missing = [n for n, group in enumerate(groups) if group is None or not str(group).strip()]
    if missing:
        raise InputError(
            f"{where} has the field {fields.group!r}, which twins share, and {len(missing)} of "
            f"{len(rows)} rows have none (first: row {missing[0]}). Give each row its group, or "
            "rename the field."
        )
    return groups


def _halves(made: Sequence[Prompt]) -> Iterable[tuple[Prompt, Prompt]]:
    half = len(made) // 2
    return zip(made[:half], made[half:], strict=True)


def _spoken(prompt: Prompt) -> Any:
    return prompt.messages or prompt.text
