"""Prompts from files and from rows of other tools: what is read is whole, or said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracekit.errors import InputError, InputTypeError
from tracekit.storage.row_files import plain, read_rows
from tracekit.transcripts.labels import missing, require_names
from tracekit.transcripts.prompts import Prompt, refuse_duplicates, take
from tracekit.transcripts.reading.answer_lines import exported_rows, is_exported
from tracekit.transcripts.reading.messages import parsed, turns, whole_text
from tracekit.transcripts.reading.prompt_fields import is_own, own_rows

KEYS = ("prompts", "data", "questions", "rows", "examples", "items", "conversations")
_EXPECTED = 'Expected {"name": …, "prompts": [{"id": 1, "text": "…"}, …]}, or a list of rows.'
# fields of a row that are no labels
_FIELDS = frozenset(
    ("id", "text", "messages", "group", "system", "system_prompt", "response", "prefill", "tools")
)
# what changes the prompt that a model would see, in ways that are not read
_UNREAD: Mapping[str, str] = {
    "functions": "Give them as tools=, as the model's template takes them.",
    "tool_calls": "Put the calls into the assistant's message.",
    "reasoning_content": "Put the reasoning into the assistant's message.",
}
# A field's name; False for none.
Field = str | bool | None


def read_prompts(
    path: str | Path,
    limit: int | None = None,
    by: str = "bias",
    *,
    text: str | None = None,
    messages: str | None = None,
    id: Field = None,
    group: str | None = None,
    system: Field = None,
    response: Field = None,
    labels: Sequence[str] | None = None,
) -> list[Prompt]:
    """The prompts of a file: JSON, JSON lines, CSV, TSV or parquet, with ids `<stem>/<id>`.

    This project's form is `{"name", "prompts": [{"id", "text", …}]}`. A row has a `text` or
    `messages` ({"role", "content"}), and may have a `group`, a `system` (or `system_prompt`), a
    `response`, a `prefill` and `tools`. Its other fields become labels (null is none); `bias` falls
    back to `bias_description`. The set's `system_prompt` (or `system`) is for each row without a
    system message of its own, its other single values are labels of every row, and its `name` and
    `description` are for the reader.

    In files of other forms (`docs/files_in.md`) fields that are not named are guessed by their
    usual names, and a warning of one line says which was taken for what; rows without an id are
    numbered, and labels whose names no file can hold get others. `text`, `messages`, `id`,
    `group`, `system` and `response` name fields outright (`id=False` numbers the rows,
    `response=False` leaves what was answered a label), and `labels` are all that are kept. `limit`
    takes that many rows in all, the same number from every value of the label `by` (± 1).

    Rows that `tk.export` wrote (`answers.jsonl`) have whole ids; their answers are read as text
    (`encode(…, responses=path)` keeps their token ids), or left out with `response=False`.

    Errors: `FileNotFoundError`, or `ValueError` for a file that is empty or of no known form, for
    the same id twice, for a row that has no text, and for what would be lost: labels with the names
    that files use themselves (`labels.RESERVED`), images, and a tool's results out of order.

    >>> from tracekit.model.embedded import datasets
    >>> len(read_prompts(datasets("prompts", "embedded_calibration.json"), limit=8))
    8
    """
    path = Path(path)
    table = read_rows(path, KEYS, "prompt file", _EXPECTED)
    given = _given(text, messages, id, group, system, response, labels)
    found = _prompts(table.rows, path.stem, repr(str(path)), given, table.beside, table.all_text)
    return found if limit is None else take(found, limit, by)


def prompts(
    rows: Any,
    *,
    name: str = "prompts",
    text: str | None = None,
    messages: str | None = None,
    id: Field = None,
    group: str | None = None,
    system: Field = None,
    response: Field = None,
    labels: Sequence[str] | None = None,
) -> list[Prompt]:
    """The prompts of rows: dicts in any iterable, a `datasets.Dataset`, a table of pandas.

    Fields are taken as `read_prompts` takes them, and named in the same way; ids are `<name>/<id>`.

    Errors: as `read_prompts`; `TypeError` for what has no rows, such as a dict of splits.

    >>> (asked,) = prompts([{"id": "a", "text": "Is snow white?", "topic": "snow"}])
    >>> asked.id, asked.labels
    ('prompts/a', {'topic': 'snow'})
    """
    if isinstance(rows, str | Path | Mapping | Prompt) or not hasattr(rows, "__iter__"):
        splits = f" with {', '.join(map(repr, rows))}" if isinstance(rows, Mapping) else ""
        raise InputTypeError(
            f"prompts was given a {type(rows).__name__}{splits}; it takes an iterable of dicts. "
            "Give one split (rows['train']), a list, or the path to read_prompts."
        )
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        rows = rows.to_dict("records")
    listed = [plain(row) for row in rows]
    if not listed:
        raise InputError("prompts was given no rows; give at least one.")
    given = _given(text, messages, id, group, system, response, labels)
    return _prompts(listed, name, f"the rows of {name!r}", given, {}, False)


def _given(*values: Any) -> dict[str, Any]:
    names = ("text", "messages", "id", "group", "system", "response", "labels")
    given = {n: value for n, value in zip(names, values, strict=True) if value is not None}
    if isinstance(given.get("labels"), str):
        raise InputError(f"labels={given['labels']!r} was given; give a list of fields.")
    return given


def _prompts(
    rows: list[Any],
    stem: str,
    where: str,
    given: Mapping[str, Any],
    beside: Mapping[str, Any],
    all_text: bool,
) -> list[Prompt]:
    shared, words = _shared(beside, f"The set {where}"), ""
    if is_exported(rows, given):
        rows, stem = exported_rows(rows, given.get("response") is not False), ""
    elif not is_own(rows, given):
        rows, words = own_rows(rows, given, where, all_text)
    unread: set[str] = set()
    made = [_prompt(stem, f"Row {n} of {where}", row, shared, unread) for n, row in enumerate(rows)]
    advice = "Rename the repeated ones, or number the rows: id=False."
    refuse_duplicates([prompt.id for prompt in made], where, advice)
    guessed = bool(words) and not words.startswith("; ")
    if guessed and not {"text", "messages"} & set(given):
        names = [f"{name}=" for name in ("text", "id", "response") if name not in given]
        words += f". Name fields to read it otherwise ({', '.join(names)}, …)"
    if unread:
        words += f"; not read: the messages' {', '.join(sorted(unread))}"
    if words:
        begins = " is read with " if guessed else ": "
        warnings.warn(f"{where}{begins}{words.removeprefix('; ')}.", stacklevel=3)
    return made


def _shared(beside: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What holds for every row of a file."""
    about = {"name", "description"}
    shared = {k: v for k, v in beside.items() if k not in about and not missing(v)}
    system, labels = _system(shared, where), _labels(shared, where)
    nested = [name for name, value in labels.items() if isinstance(value, list | dict)]
    if nested:
        raise InputError(
            f"{where} has {', '.join(map(repr, nested))} beside its prompts, which no row would "
            "carry. Put into the rows what belongs to them, and leave out the rest."
        )
    more: dict[str, Any] = {name: shared[name] for name in ("prefill", "tools") if name in shared}
    return {**labels, **more, "system": system}


def _prompt(stem: str, where: str, row: Any, shared: Mapping[str, Any], unread: set[str]) -> Prompt:
    text, messages = row.get("text"), row.get("messages") or ()
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"{where} has the text {str(text)[:40]!r}; it has to be text (several turns are "
            "messages, with the answers between them)."
        )
    if row.get("id") is None or not (text or messages):
        raise InputError(
            f"{where} has the fields {sorted(row)}; "
            "each row needs an id and a non-empty text (or messages)."
        )
    row = {**{k: v for k, v in shared.items() if k != "system"}, **row}
    labels = _labels(row, where)
    if "bias_description" in labels:
        labels.setdefault("bias", labels["bias_description"])
    system = _system(row, where)
    talk = turns(messages, where, unread)
    if system is None and not (talk and talk[0][0] == "system"):
        system = shared["system"]
    text = text or None if messages else text
    prefill = row.get("prefill") or ""
    if not isinstance(prefill, str):
        raise InputError(f"{where} has the prefill {str(prefill)[:40]!r}; it has to be text.")
    before = f"{stem}/" if stem else ""
    if row.get("response"):
        text, talk = _answered(text, talk, row["response"], where)
    return Prompt(
        id=f"{before}{_name(row, 'id', where)}",
        text=text,
        messages=talk,
        group=f"{before}{_name(row, 'group', where)}" if not missing(row.get("group")) else "",
        labels=labels,
        system=system,
        prefill=prefill,
        tools=_tools(row.get("tools")),
    )


def _answered(
    text: str | None, talk: Sequence[Any], response: Any, where: str
) -> tuple[None, tuple[Any, ...]]:
    if not isinstance(response, str):
        raise InputError(f"{where} has the response {str(response)[:40]!r}; it has to be text.")
    if text is None and talk[-1][0] in ("assistant", "tool_calls"):
        raise InputError(
            f"{where} ends with the assistant's turn, which is its response, and has the response "
            f"{response[:40]!r} beside. Leave one of them out (response=False)."
        )
    before = tuple(talk) if text is None else (("user", text),)
    return None, (*before, ("assistant", response))


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
    values = [whole_text(value, where) for value in there.values() if value is not None]
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise InputError(f"{where} has {there}; give one system message, as text.")
    return values[0] if values else None


def _tools(tools: Any) -> Any:
    """A row's tools, which may be JSON text; what they are is the prompt's to check."""
    none = isinstance(tools, str) and tools.replace(" ", "") in ("[]", "")
    return () if none else parsed(tools) or ()


def _name(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{where} has the {name} {value!r}; it has to be a text or whole number.")
    return str(value)
