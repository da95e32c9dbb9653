"""Contrast pairs from files of other forms: answers, statements, instructions with questions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.storage.row_files import read_rows, typed
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_fields import TEXTS, label_name
from traits.contrast_sets.contrast import ContrastSet

SIDES = (
    *(("positive", "negative"), ("pos", "neg"), ("shows", "lacks"), ("chosen", "rejected")),
    *(("answer_matching_behavior", "answer_not_matching_behavior"),),
    *(("positive_prompt", "negative_prompt"), ("positive_text", "negative_text")),
    *(("honest", "dishonest"), ("better", "worse"), ("preferred", "dispreferred")),
)
ASKED = ("question", "prompt", "user", "instruction", "query", "input")
LABELS = ("label", "labels", "is_true", "truth", "target")
KEYS = ("pairs", "data", "questions", "rows", "examples", "items")
_EXPECTED = (
    "Read are rows with two sides (positive and negative, chosen and rejected, the answers that "
    "match a behaviour and not), rows with a statement and a label of 1 or 0, and instructions "
    "with questions."
)
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


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
) -> list[Prompt]:
    """Prompts with `label` 1 or 0 and the group that twins share, for `encode` and `extract`.

    `path` is a file of pairs (JSON, JSON lines, CSV, TSV, parquet), a folder with `positive.txt`
    and `negative.txt`, or the first of two text files, of which `twins` is the second; line n of
    one is the twin of line n of the other. `name` is the trait (the file's name, if not given);
    ids are `<name>/positive/<n>` and the group is `<name>/<n>`.

    Rows with two sides are pairs: of texts (encode with template="raw"), or of answers where they
    have a question as well (messages, of which the answer is the response, without spaces around
    it). Two lists, `instruction` ({"pos", "neg"}) and `questions`, are every question under every
    instruction as its system message. Rows with a statement and a label have no twins:
    `extract(…, paired=False)`. Fields are guessed by their usual names, or named: `positive`,
    `negative`, `asked`, `text`, `label`; a warning of one line says which were guessed. All
    other fields become labels.

    Errors: `FileNotFoundError`, and `ValueError` for a file of no such form, sides that are the
    same or empty, and labels that are not 1 and 0 (or true and false).

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
    table = read_rows(path, KEYS, "file of pairs", _EXPECTED)
    where = repr(str(path))
    if isinstance(table.beside.get("instruction"), list):
        return _persona(name, table.beside, table.rows, where)
    rows = [_object(row, f"Row {n} of {where}") for n, row in enumerate(table.rows)]
    names = list(dict.fromkeys(field for row in rows for field in row))
    sides = (positive, negative) if positive and negative else _first_pair(names)
    fields: dict[str, str | None]
    if sides and not label:
        question = asked or _first(ASKED, [n for n in names if n not in sides])
        made = _two_sided(name, rows, names, sides, question, where)
        fields = {"positive": sides[0], "negative": sides[1], "asked": question}
    else:
        fields = {"text": text or _first(TEXTS, names), "label": label or _first(LABELS, names)}
        _require(fields["text"], fields["label"], names, where)
        two = (str(fields["text"]), str(fields["label"]))
        made = _statements(name, rows, names, two, where, table.all_text)
    _warn(where, fields, {positive, negative, asked, text, label}, made)
    return made


def _warn(
    where: str, fields: Mapping[str, str | None], named: set[str | None], made: Sequence[Prompt]
) -> None:
    """Say which fields were guessed, and that there are no twins."""
    guessed = [
        f"{name}={field!r}" for name, field in fields.items() if field and field not in named
    ]
    alone = len({prompt.group for prompt in made}) == len(made)
    words = [", ".join(guessed)] if guessed else []
    words += ["without twins: extract(…, paired=False)"] if alone else []
    if words:
        advice = " Name fields to read it otherwise." if guessed else ""
        warnings.warn(f"{where} is read with {', '.join(words)}.{advice}", stacklevel=3)


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


def _two_sided(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    sides: tuple[str, str],
    asked: str | None,
    where: str,
) -> list[Prompt]:
    rest = _labels(rows, [n for n in names if n not in (*sides, asked)], where)
    made: list[Prompt] = []
    for side, field in zip(("positive", "negative"), sides, strict=True):
        for n, row in enumerate(rows):
            said = _said(row.get(asked or ""), row.get(field), f"{where}, row {n}, {field}")
            labels = {"label": int(side == "positive"), **rest[n]}
            made.append(Prompt(f"{name}/{side}/{n}", group=f"{name}/{n}", labels=labels, **said))
    same = [one.group for one, other in _halves(made) if _spoken(one) == _spoken(other)]
    if same:
        raise InputError(
            f"{where} has the same text on both sides of {len(same)} pairs (first: {same[0]!r}). "
            "A pair must differ; rewrite or delete it."
        )
    return made


def _said(question: Any, answer: Any, where: str) -> dict[str, Any]:
    """The text or the messages of one side."""
    if isinstance(answer, list) and answer:
        return {"messages": answer}
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(f"{where} is {answer!r}; each side is a text or messages. Write it.")
    if _TURN.match(answer):  # hh-rlhf: a whole talk in one text
        parts = _TURN.split(answer)[1:]
        roles = ("user" if who == "Human" else "assistant" for who in parts[::2])
        return {"messages": list(zip(roles, map(str.strip, parts[1::2]), strict=True))}
    if isinstance(question, list) and question:
        return {"messages": [*question, {"role": "assistant", "content": answer.strip()}]}
    if isinstance(question, str) and question:
        return {"messages": [("user", question), ("assistant", answer.strip())]}
    return {"text": answer}


def _statements(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    fields: tuple[str, str],
    where: str,
    all_text: bool,
) -> list[Prompt]:
    """Statements with a label and no twins; two of one row (RepE's form) are a pair."""
    text, label = fields
    rest = _labels(rows, [n for n in names if n not in fields], where, all_text)
    made = []
    for n, row in enumerate(rows):
        texts, labels = row.get(text), row.get(label)
        twins = isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels)
        both = list(zip(texts or [], labels or [], strict=True)) if twins else [(texts, labels)]
        for k, (one, truth) in enumerate(both):
            place = f"{where}, row {n}"
            if not isinstance(one, str) or not one.strip():
                raise InputError(f"{place} has the {text} {one!r}; it has to be text. Write it.")
            row_id = f"{name}/{n}-{k}" if twins else f"{name}/{n}"
            own = {"label": _truth(truth, label, place), **rest[n]}
            made.append(Prompt(row_id, text=one, group=f"{name}/{n}", labels=own))
    return made


def _truth(value: Any, field: str, where: str) -> int:
    word = str(value).strip().lower()
    if word not in ("0", "1", "true", "false", "1.0", "0.0"):
        raise InputError(
            f"{where} has the {field} {value!r}; it has to be 1 or 0, true or false. Select the "
            "rows of two kinds and label them so."
        )
    return int(word in ("1", "true", "1.0"))


def _labels(
    rows: Sequence[Mapping[str, Any]], fields: Sequence[str], where: str, all_text: bool = False
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{} for _ in rows]
    for field in fields:
        name = "my_label" if field == "label" else label_name(field)
        column = [row.get(field) for row in rows]
        for labels, value in zip(made, typed(column) if all_text else column, strict=True):
            labels.update({} if value is None else {name: value})
    return made


def _require(text: str | None, label: str | None, names: Sequence[str], where: str) -> None:
    if text not in names or label not in names:
        raise InputError(
            f"{where} has the fields {', '.join(map(repr, names))}, of which no two are known as "
            f"sides, and none as a statement's label. {_EXPECTED} Name them: positive=, negative=, "
            "asked=, or text=, label=."
        )


def _object(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"{where} is {str(row)[:40]!r}, not an object. {_EXPECTED}")
    return row


def _first(wanted: Iterable[str], names: Sequence[str]) -> str | None:
    low = {name.strip().lower(): name for name in reversed(names)}
    return next((low[name] for name in wanted if name in low), None)


def _first_pair(names: Sequence[str]) -> tuple[str, str] | None:
    for pair in SIDES:
        positive, negative = (_first([side], names) for side in pair)
        if positive and negative:
            return positive, negative
    return None


def _halves(made: Sequence[Prompt]) -> Iterable[tuple[Prompt, Prompt]]:
    half = len(made) // 2
    return zip(made[:half], made[half:], strict=True)


def _spoken(prompt: Prompt) -> Any:
    return prompt.messages or prompt.text
