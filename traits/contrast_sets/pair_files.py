"""Contrast pairs from files of other forms: answers, statements, instructions with questions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.storage.row_files import read_rows
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_fields import SYSTEMS
from traits.contrast_sets.contrast import ContrastSet
from traits.contrast_sets.pair_fields import EXPECTED, pair_fields
from traits.contrast_sets.pair_rows import labelled, two_sided

KEYS = ("pairs", "data", "questions", "rows", "examples", "items")
_ABOUT = ("name", "description", *SYSTEMS)


def read_pairs(
    path: str | Path,
    twins: str | Path | None = None,
    *,
    name: str = "",
    positive: str | None = None,
    negative: str | None = None,
    asked: str | None = None,
    text: str | None = None,
    label: str | None = None,
    system: str | None = None,
) -> list[Prompt]:
    """Prompts with `label` 1 or 0 and the group that twins share, for `encode` and `extract`.

    `path` is a file of pairs (JSON, JSON lines, CSV, TSV, parquet), a folder with `positive.txt`
    and `negative.txt`, or the first of two text files, of which `twins` is the second; line n of
    one is the twin of line n of the other. `name` is the trait (the file's name, if not given);
    ids are `<name>/positive/<n>` and the group is `<name>/<n>`.

    Rows with two sides are pairs: of texts (encode with template="raw"), or of answers where they
    have a question as well (messages, of which the answer is the response, without spaces around
    it). A row's `system`, or that of the file beside its pairs, is the system message. Two lists,
    `instruction` ({"pos", "neg"}) and `questions`, are every question under every instruction as
    its system message. Rows with a label and a statement, or a question (`asked`) and its answer
    (`text`), are twins where a field `group` says so, and else have none: `extract(…,
    paired=False)`. Fields are guessed by their usual names, or
    named; a warning of one line says which were guessed. All other fields become labels, and are
    said.

    Errors: `FileNotFoundError`, and `ValueError` for a file of no such form, a field that is named
    and not there, sides that are the same or empty, a question that a conversation beside it does
    not hold, and labels that are not 1 and 0 (or true and false).

    >>> rows = '{"question": "Is it?", "positive": "Yes.", "negative": "No."}'
    >>> Path("agreeing.jsonl").write_text(rows) > 0
    True
    >>> [(p.group, p.answer, p.labels["label"]) for p in read_pairs("agreeing.jsonl")]
    [('agreeing/0', 'Yes.', 1), ('agreeing/0', 'No.', 0)]
    """
    path = Path(path)
    name = name or path.stem
    if path.is_dir():
        path, twins = path / "positive.txt", path / "negative.txt"
    if twins is not None:
        return ContrastSet(name, _texts(path), _texts(Path(twins))).prompts()
    table = read_rows(path, KEYS, "file of pairs", EXPECTED)
    where = repr(str(path))
    if isinstance(table.beside.get("instruction"), list):
        return _persona(name, table.beside, table.rows, where)
    rows = [_object(row, f"Row {n} of {where}") for n, row in enumerate(table.rows)]
    named = {"positive": positive, "negative": negative, "asked": asked}
    named |= {"text": text, "label": label, "system": system}
    fields = pair_fields(rows, named, where)
    shared = _system(table.beside, where)
    if fields.sides:
        made = two_sided(name, rows, fields, shared, where)
    else:
        made = labelled(name, rows, fields, shared, where, table.all_text)
    alone = len({prompt.group for prompt in made}) == len(made)
    words = fields.said(named, alone)
    guessed = any(not named[one] for one in fields.used())
    unread = [key for key in table.beside if key not in _ABOUT]
    _warn(where, words, guessed, unread)
    return made


def _system(beside: Mapping[str, Any], where: str) -> str | None:
    """The system message that a file gives for all of its rows."""
    there = {name: beside[name] for name in SYSTEMS if beside.get(name) is not None}
    if len(there) > 1 or not all(isinstance(value, str) for value in there.values()):
        raise InputError(f"{where} has {there}; give one system message, as text.")
    return next(iter(there.values()), None)


def _warn(where: str, words: str, guessed: bool, unread: Sequence[str]) -> None:
    """Say which fields were guessed, that there are no twins, and what is beside the rows."""
    if unread:
        words += f"; not read: {', '.join(unread)}"
    if words:
        advice = " Name fields to read it otherwise." if guessed else ""
        begins = ": " if words.startswith(("; ", "labels: ")) else " is read with "
        line = f"{where}{begins}{words.removeprefix('; ')}.{advice}"
        warnings.warn(line, stacklevel=3)


def _texts(path: Path) -> tuple[str, ...]:
    """The lines of a text, where a line break within one is written \\n, as llama.cpp has it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"The text {str(path)!r} does not exist. Give positive.txt and negative.txt, a prefix "
            "a line, line n being the twin of the other's line n."
        )
    lines = path.read_text("utf-8-sig").removesuffix("\n").split("\n")
    return tuple(line.replace("\\n", "\n") for line in lines)


def _persona(
    name: str, beside: Mapping[str, Any], questions: Sequence[Any], where: str
) -> list[Prompt]:
    """Every question under every instruction, of persona_vectors' form."""
    instructions = beside["instruction"]
    fit = all(
        isinstance(one, Mapping) and all(isinstance(one.get(k), str) for k in ("pos", "neg"))
        for one in instructions
    )
    if not fit or not all(isinstance(question, str) for question in questions):
        raise InputError(
            f"{where} has instructions and questions of another form; they are "
            '{"instruction": [{"pos": …, "neg": …}], "questions": ["…"]}. Write them so.'
        )
    unread = [key for key in beside if key != "instruction"]
    more = f"; not read: {', '.join(unread)}" if unread else ""
    warnings.warn(
        f"{where} is read as {len(instructions)} instructions × {len(questions)} questions{more}.",
        stacklevel=3,
    )
    return [
        Prompt(
            f"{name}/{side}/{n}-{m}",
            text=question,
            system=instruction[key],
            group=f"{name}/{n}-{m}",
            labels={"label": int(key == "pos"), "instruction": n, "question": m},
        )
        for side, key in (("positive", "pos"), ("negative", "neg"))
        for n, instruction in enumerate(instructions)
        for m, question in enumerate(questions)
    ]


def _object(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"{where} is {str(row)[:40]!r}, not an object. {EXPECTED}")
    return row
