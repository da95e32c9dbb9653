"""Which field of a row is what: the usual names of public prompt sets, put into this project's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.errors import InputError
from tracekit.storage.row_files import typed
from tracekit.transcripts.labels import RESERVED
from tracekit.transcripts.reading.choices import lettered
from tracekit.transcripts.reading.messages import CALLS, is_talk, parsed, turns

# in the order in which they are looked for, without case
TEXTS = (
    *("instruction", "prompt", "question", "query", "goal", "forbidden_prompt", "text", "request"),
    *("problem", "statement", "sentence", "behavior", "input", "user_message", "user", "human"),
    *("task", "content", "adversarial", "vanilla", "turns"),
)
TALKS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
IDS = (
    *("id", "_id", "uid", "uuid", "custom_id", "prompt_id", "question_id", "behaviorid", "qid"),
    *("conversation_id", "conversation_hash", "example_id", "task_id", "index", "idx", "key"),
)
RESPONSES = ("response", "output", "completion", "generation", "model_output")
SYSTEMS = ("system", "system_prompt", "system_message")
# what a text is asked about, which its set keeps in another field: before or after it
BESIDE = {
    ("instruction", "input"): "{0}\n\n{1}",
    ("instruction", "context"): "{0}\n\n{1}",
    ("question", "context"): "{1}\n\n{0}",
    ("question", "passage"): "{1}\n\n{0}",
    ("behavior", "contextstring"): "{1}\n\n---\n\n{0}",
}
CHOICES = ("choices", "options")
MARKUP = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|<\|begin_of_text"
)
# beside a text of this project's own form these may be what others mean by them; what cannot be a
# label is refused there
_OTHERS = (*TEXTS[: TEXTS.index("text")], *TALKS[1:], *RESPONSES, *CHOICES, "parent_id")
_GUESSED = {*_OTHERS} - RESERVED
_HOUSE = ("id", "group", "prefill", "tools")
_NO_LABELS = (*_HOUSE, "text", "messages", "response", *SYSTEMS[:2])


def is_own(rows: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether rows are in this project's own form, which leaves nothing to guess."""
    return not given and all(
        isinstance(row, Mapping)
        and row.get("id") is not None
        and (row.get("text") or row.get("messages"))
        and not {_key(str(name)) for name in row} & _GUESSED
        for row in rows
    )


class Fields:
    """The fields of rows by what they are to a prompt, as they were given or are guessed."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], given: Mapping[str, Any], where: str):
        self.names = list(dict.fromkeys(str(name) for row in rows for name in row))
        self._rows, self._where, self._named = rows, where, set(given)
        self._low = {_key(name): name for name in reversed(self.names)}
        for name, field in given.items():
            wanted = field if name == "labels" else [field]
            lacking = [one for one in wanted if one is not False and one not in self.names]
            if lacking:
                raise InputError(
                    f"{where} was to be read with {name}={lacking[0]!r}; its fields are "
                    f"{', '.join(map(repr, self.names))}. Give one of these."
                )
        self.talk = given.get("messages") or (None if "text" in given else self._talk())
        self.text = given.get("text") or (self._beside_talks() if self.talk else self._text())
        self.beside = None if "text" in given else self._beside()
        self.choices = None if "text" in given or not self.text else self._choices()
        self.id = given["id"] if "id" in given else self._id()
        self.group = given.get("group") or self._low.get("group")
        self.system = given["system"] if "system" in given else self._system()
        self.response = given["response"] if "response" in given else self._response()
        self.labels = given.get("labels")

    def _first(self, names: Sequence[str]) -> str | None:
        return next((self._low[name] for name in names if name in self._low), None)

    def _talk(self) -> str | None:
        fields = (*TALKS, *TEXTS)
        there = [self._low[name] for name in fields if name in self._low]
        if any(row.get("messages") and isinstance(row["messages"], list) for row in self._rows):
            return "messages"  # of the own form, pairs too
        return next((name for name in there if any(is_talk(r.get(name)) for r in self._rows)), None)

    def _beside_talks(self) -> str | None:
        """The field of rows that have a text where others have messages."""
        alone = any(row.get("text") and not row.get(str(self.talk)) for row in self._rows)
        return "text" if alone else None

    def _text(self) -> str:
        house = "instruction" not in self._low and all(
            row.get("id") is not None and row.get("text") for row in self._rows
        )
        field = "text" if house else self._first(TEXTS)
        if field is None:
            raise InputError(
                f"{self._where} has the fields {', '.join(map(repr, self.names))}, of which none "
                "is known as a prompt's text. Say which: text='…' (and id=, response=, …)."
            )
        return field

    def _beside(self) -> tuple[str, str] | None:
        pairs = (pair for pair in BESIDE if _key(self.text or "") == pair[0])
        return next((pair for pair in pairs if pair[1] in self._low), None)

    def _choices(self) -> tuple[str, ...]:
        letters = tuple(self._low[n] for n in "abcd" if n in self._low)
        field = self._first(CHOICES)
        return (field,) if field else letters if len(letters) == 4 else ()

    def _system(self) -> str | None:
        asks = any(str(row.get("url", "")).endswith("/responses") for row in self._rows)
        return self._first((*SYSTEMS, "instructions") if asks else SYSTEMS)

    def _id(self) -> str | None:
        field = self._first(IDS)
        values = [row[field] for row in self._rows if field is not None and field in row]
        unique = len(set(map(str, values))) == len(values)
        return field if unique or field == "id" else None

    def _response(self) -> str | None:
        field = self._first(RESPONSES) or ""
        rows = [(n, row) for n, row in enumerate(self._rows) if row.get(field)]
        fit = all(isinstance(row[field], str) or is_talk(row[field]) for _, row in rows)
        return field if rows and fit and not any(self._answered(*row) for row in rows) else None

    def _answered(self, number: int, row: Mapping[str, Any]) -> bool:
        """Whether a row's messages end with an answer, beside which another field is none."""
        talk = parsed(row.get(self.talk)) if self.talk else None
        where = f"Row {number} of {self._where}"
        return bool(talk) and turns(talk, where, set())[-1][0] in ("assistant", CALLS)

    def said(self) -> str:
        """What was guessed to be what, in one line; nothing where every field was named."""
        pairs = {"messages": self.talk, "text": self.text}
        asked = ", ".join(f"{name}={field!r}" for name, field in pairs.items() if field)
        parts = [] if {"text", "messages"} & self._named else [asked]
        parts += [f"with {self._low[self.beside[1]]!r}"] if self.beside else []
        parts += self._said_of_choices()
        lacking = self.id and any(row.get(self.id) in (None, "") for row in self._rows)
        numbered = [f"id={self.id!r}" if self.id else "ids numbered"]
        parts += [] if "id" in self._named else numbered
        parts += [f"numbers where {self.id!r} is missing"] if lacking else []
        pairs = {"group": self.group, "system": self.system, "response": self.response}
        parts += [f"{n}={f!r}" for n, f in pairs.items() if f and n not in self._named]
        names = self.label_names()
        renamed = any(name != field for field, name in names.items())
        if self.labels is None and (parts or renamed):
            labels = [f"{n} (from {f!r})" if n != f else n for f, n in names.items()]
            return "; ".join(
                filter(None, [", ".join(parts), f"labels: {', '.join(labels) or 'none'}"])
            )
        return ", ".join(parts)

    def _said_of_choices(self) -> list[str]:
        if not self.choices:
            return []
        names, rows = ", ".join(self.choices), len(self._rows)
        unknown = sum(self._lines(row) is None for row in self._rows)
        lacking = f"without the choices of {names} in {unknown} of {rows} rows (of no known form)"
        there = f"with the choices of {names}"
        return [*([there] if unknown < rows else []), *([lacking] if unknown else [])]

    def label_names(self) -> dict[str, str]:
        """The fields that become labels, and the labels' names."""
        used = {self.talk, self.text, self.id, self.group, self.system, self.response}
        used |= {self._low[self.beside[1]]} if self.beside else set()
        house = {self._low[name] for name in _HOUSE if name in self._low}
        rest = [n for n in self.names if n not in used | house]
        chosen = rest if self.labels is None else [n for n in self.labels if n not in used]
        return {field: label_name(field) for field in chosen}

    def own(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        """A row with this project's names."""
        made: dict[str, Any] = {"id": number if self.id is None else row.get(self.id)}
        made["id"] = number if made["id"] in (None, "") else made["id"]
        if self.talk and (row.get(self.talk) or not self.text):
            made["messages"] = parsed(row.get(self.talk))
        else:
            made["text"] = self._whole_text(row)
        pairs = {"group": self.group, "system": self.system, "response": self.response}
        made |= {name: row.get(field) or None for name, field in pairs.items() if field}
        made |= {name: row[name] for name in ("prefill", "tools") if row.get(name)}
        if is_talk(made.get("response")):  # TRL: messages that go on with the prompt's
            asked = made.get("messages") or [{"role": "user", "content": made.pop("text")}]
            made |= {"messages": [*asked, *parsed(made["response"])], "response": None}
        return made

    def _lines(self, row: Mapping[str, Any]) -> str | None:
        """The choices of a row as lines; None where they are of no known form."""
        fields = self.choices or ()
        if len(fields) == 1:
            choices = row.get(fields[0])
            return "" if choices in (None, "", [], {}) else lettered(choices)
        return lettered({_key(name).upper(): row.get(name) for name in fields}) if fields else ""

    def _whole_text(self, row: Mapping[str, Any]) -> Any:
        text = row.get(self.text or "")
        if isinstance(text, list) and len(text) == 1 and isinstance(text[0], str):
            text = text[0]  # MT-bench's turns, where there is one
        context = row.get(self._low[self.beside[1]]) if self.beside else None
        if self.beside and isinstance(text, str) and context:
            text = BESIDE[self.beside].format(text, context)
        if isinstance(text, str) and self.choices:
            text += self._lines(row) or ""
        return text


def own_rows(
    rows: Sequence[Any], given: Mapping[str, Any], where: str, all_text: bool
) -> tuple[list[dict[str, Any]], str]:
    """Rows in this project's form, and what was guessed; what else is to say follows a "; ".

    Errors: `ValueError` for a row that is no object, and a field that is named and not there.
    """
    objects = [_row(row, f"Row {n} of {where}") for n, row in enumerate(rows)]
    fields = Fields(objects, given, where)
    made = [fields.own(row, n) for n, row in enumerate(objects)]
    _refuse_same_names(fields.label_names(), where)
    for field, name in fields.label_names().items():
        column = [row.get(field) for row in objects]
        for row, value in zip(made, typed(column) if all_text else column, strict=True):
            row[name] = value
    said = fields.said()
    markup = next((m[0] for r in made if (m := MARKUP.search(str(r.get("text") or "")))), None)
    if markup:
        said += f"; the texts hold a chat's own markup ({markup!r}), for encode(template='raw')"
    return made, said


def label_name(field: str) -> str:
    """A field's name as that of a label, which a file can hold.

    >>> label_name("Best Answer"), label_name("text")
    ('Best_Answer', 'my_text')
    """
    name = re.sub(r"[\s/\x00-\x1f\x7f]+", "_", unicodedata.normalize("NFC", field).strip())[:60]
    odd = name in RESERVED or name in _NO_LABELS or re.fullmatch(r"string\d+|\W.*|", name)
    return f"my_{name}" if odd else name


def _row(row: Any, where: str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"text": row}
    if is_talk(row):
        return {"messages": row}
    if not isinstance(row, Mapping):
        raise InputError(
            f'{where} is {str(row)[:40]!r}, not an object with a text. Write {{"text": …}}.'
        )
    if row.get("parent_id") and isinstance(row.get("role"), str):
        raise InputError(
            f"{where} is a message of a tree (role {row['role']!r}, parent_id "
            f"{row['parent_id']!r}), which is no prompt by itself. Write each way through the tree "
            "as messages, or select the rows without a parent."
        )
    body = row.get("body")  # a request to a server, a line each
    if isinstance(body, Mapping):
        return {**{name: value for name, value in row.items() if name != "body"}, **body}
    return dict(row)


def _key(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _refuse_same_names(names: Mapping[str, str], where: str) -> None:
    for field, name in names.items():
        same = [other for other, label in names.items() if label == name and other != field]
        if same:
            raise InputError(
                f"{where} has the fields {field!r} and {same[0]!r}, which both would be the label "
                f"{name!r}. Rename one of them, or choose with labels=[…]."
            )
