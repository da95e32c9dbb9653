"""Which field of a row is what to a contrast pair: named, or guessed by its usual names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts.reading.prompt_fields import RESPONSES, SYSTEMS, TEXTS, label_name

SIDES = (
    *(("positive", "negative"), ("pos", "neg"), ("shows", "lacks"), ("chosen", "rejected")),
    *(("answer_matching_behavior", "answer_not_matching_behavior"),),
    *(("positive_prompt", "negative_prompt"), ("positive_text", "negative_text")),
    *(("honest", "dishonest"), ("better", "worse"), ("preferred", "dispreferred")),
)
ASKED = ("question", "prompt", "user", "instruction", "query", "input")
ANSWERS = (*RESPONSES, "answer")
LABELS = ("label", "labels", "is_true", "truth", "target")
EXPECTED = (
    "Read are rows with two sides (positive and negative, chosen and rejected, the answers that "
    "match a behaviour and not), rows with a statement and a label of 1 or 0, and instructions "
    "with questions."
)


@dataclass(frozen=True)
class PairFields:
    """The fields of rows: two `sides` or a `text` with its `label`, and what stands before them.

    `group` is what labelled texts share that are twins; two sides of a row are twins as they are.
    """

    names: tuple[str, ...]
    sides: tuple[str, str] | None
    asked: str | None
    text: str | None
    label: str | None
    system: str | None
    group: str | None = None

    def used(self) -> dict[str, str]:
        """The fields that are something to a pair, by what they are."""
        positive, negative = self.sides or (None, None)
        roles = {"positive": positive, "negative": negative, "text": self.text, "label": self.label}
        roles |= {"asked": self.asked, "system": self.system}
        return {name: field for name, field in roles.items() if field}

    def labels(self) -> dict[str, str]:
        """The fields that become labels, and the labels' names."""
        used = {*self.used().values(), self.group}
        rest = [name for name in self.names if name not in used]
        return {n: "my_label" if n == "label" else label_name(n) for n in rest}

    def said(self, named: Mapping[str, str | None], alone: bool) -> str:
        """What was guessed to be what, and that rows are `alone`; nothing where all were named."""
        guessed = [f"{name}={field!r}" for name, field in self.used().items() if not named[name]]
        words = [*guessed, *(["without twins: extract(…, paired=False)"] if alone else [])]
        labels = self.labels()
        if labels and (guessed or any(name != field for field, name in labels.items())):
            shown = [n if n == f else f"{n} (from {f!r})" for f, n in labels.items()]
            return f"{', '.join(words)}; labels: {', '.join(shown)}".removeprefix("; ")
        return ", ".join(words)


def pair_fields(
    rows: Sequence[Mapping[str, Any]], named: Mapping[str, str | None], where: str
) -> PairFields:
    """The fields of rows, of which `named` are given.

    Errors: `ValueError` for a name that no row has, one side without the other, and rows of which
    no fields are known as sides, or as a text with its label.
    """
    names = tuple(dict.fromkeys(str(field) for row in rows for field in row))
    _refuse_unknown(names, named, where)
    system = named["system"] or _first(SYSTEMS, names)
    sides, asked = _sides(names, named), named["asked"]
    if sides:
        asked = asked or _first(ASKED, [n for n in names if n not in sides])
        return PairFields(names, sides, asked, None, None, system)
    label = named["label"] or _first(LABELS, names)
    answer = _first(ANSWERS, [n for n in names if n not in (asked, label)])
    question = asked or _first(ASKED, [n for n in names if n not in (answer, label)])
    text = named["text"]
    if not text and answer and question and _spoken(rows, answer):
        text, asked = answer, question
    text = text or _first(TEXTS, [n for n in names if n not in (asked, label)])
    if not text or not label:
        raise InputError(
            f"{where} has the fields {', '.join(map(repr, names))}, of which no two are known as "
            f"sides, and none as a statement's label. {EXPECTED} Name them: positive=, negative=, "
            "asked=, or text=, label=."
        )
    group = _first(["group"], [n for n in names if n not in (asked, text, label, system)])
    return PairFields(names, None, asked, text, label, system, group)


def _sides(names: Sequence[str], named: Mapping[str, str | None]) -> tuple[str, str] | None:
    positive, negative = named["positive"], named["negative"]
    if positive and negative:
        return positive, negative
    if named["label"] or named["text"]:
        return None
    for pair in SIDES:
        one, other = (_first([side], names) for side in pair)
        if one and other:
            return one, other
    return None


def _refuse_unknown(names: Sequence[str], named: Mapping[str, str | None], where: str) -> None:
    lacking = [(name, field) for name, field in named.items() if field and field not in names]
    if lacking:
        raise InputError(
            f"{where} was to be read with {lacking[0][0]}={lacking[0][1]!r}; its fields are "
            f"{', '.join(map(repr, names))}. Give one of these."
        )
    if bool(named["positive"]) != bool(named["negative"]):
        one, other = sorted(("positive", "negative"), key=lambda side: not named[side])
        raise InputError(
            f"{where} was to be read with {one}={named[one]!r} alone. Give {other}= too; its "
            f"fields are {', '.join(map(repr, names))}."
        )


def _spoken(rows: Sequence[Mapping[str, Any]], field: str) -> bool:
    return all(isinstance(row.get(field), str | list) for row in rows)


def _first(wanted: Iterable[str], names: Sequence[str]) -> str | None:
    low = {name.strip().lower(): name for name in reversed(names)}
    return next((low[name] for name in wanted if name in low), None)
