"""Rows of a file: JSON, JSON lines, CSV, TSV and parquet, each row an object of plain values."""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tracekit.errors import InputError
from tracekit.storage.files import reading

KINDS = ".json, .jsonl, .csv, .tsv and .parquet"
_OTHERS = (".txt", ".md", ".yaml", ".yml", ".xlsx", ".xls", ".gz", ".zip", ".zst", ".arrow", ".pkl")
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,14})")
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?|-?\.\d+")


@dataclass(frozen=True)
class Table:
    """A file's rows, what it says beside them, and whether its values are text alone (CSV)."""

    rows: list[Any]
    beside: Mapping[str, Any]
    all_text: bool = False


def read_rows(path: Path, keys: Sequence[str], what: str, expected: str) -> Table:
    """The rows of a file; those of a JSON object stand under one of `keys`.

    `what` names the kind of file in errors, `expected` says what it should hold.

    Errors: `FileNotFoundError` naming its neighbours; `ValueError` for a file that is not of the
    kind its name says, holds no rows, or has a name twice.

    >>> Path("a.csv").write_text("id,text\\n1,Hi\\n") > 0
    True
    >>> read_rows(Path("a.csv"), ("rows",), "prompt file", "").rows
    [{'id': '1', 'text': 'Hi'}]
    """
    if not path.is_file():
        kinds = [f".{kind.strip('. ')}" for kind in KINDS.replace(" and ", ", ").split(",")]
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = sorted(p.name for p in beside if p.suffix in kinds)
        raise FileNotFoundError(
            f"The {what} {str(path)!r} does not exist. "
            f"Files in that folder: {', '.join(near[:20]) or 'none'}."
        )
    suffix = path.suffix.lower()
    if suffix in _OTHERS:
        raise InputError(
            f"The {what} {str(path)!r} is a {suffix} file; {KINDS} are read. Convert it, unpack "
            "it, or read it yourself and give its rows (tk.prompts(rows), or a list of texts)."
        )
    if suffix in (".parquet", ".pq"):
        return _filled(Table(_parquet(path, what), {}), path, what, expected)
    text = _text(path, what, expected)
    if suffix in (".csv", ".tsv"):
        table = Table(_separated(path, text, suffix, what), {}, all_text=True)
    elif suffix in (".jsonl", ".ndjson"):
        table = Table(_lines(path, text, what), {})
    else:
        table = _json(path, text, keys, what, expected)
    return _filled(table, path, what, expected)


def plain(value: Any) -> Any:
    """A value as JSON would have it: arrays as lists, dates as text, NaN as none.

    >>> plain({"a": np.array([1, 2])})
    {'a': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value != value:  # NaN, and what pandas has for no date
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value


def typed(values: Iterable[Any]) -> list[Any]:
    """A column of texts as what they all are: whole numbers, numbers, true and false, or text.

    Empty texts are none. "01" stays text, as do "nan" and numbers of more than 15 digits.

    >>> typed(["1", "2", ""]), typed(["01", "2"])
    ([1, 2, None], ['01', '2'])
    """
    texts = list(values)
    there = [text for text in texts if isinstance(text, str) and text]
    kind: Any = str
    if there and all(_WHOLE.fullmatch(text) for text in there):
        kind = int
    elif there and all(_NUMBER.fullmatch(text) for text in there) and not any(map(_zeros, there)):
        kind = float
    elif there and all(text.lower() in ("true", "false") for text in there):
        kind = _true
    return [kind(text) if isinstance(text, str) and text else None for text in texts]


def _zeros(text: str) -> bool:
    return bool(re.match(r"-?0\d", text))


def _true(text: str) -> bool:
    return text.lower() == "true"


def _filled(table: Table, path: Path, what: str, expected: str) -> Table:
    if not table.rows:
        raise InputError(f"The {what} {str(path)!r} holds no rows. {expected}")
    return table


def _text(path: Path, what: str, expected: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "text" if path.suffix.lower() in (".csv", ".tsv") else "JSON text"
        raise InputError(
            f"The {what} {str(path)!r} is binary, not {kind} in UTF-8: {error}. Save it as UTF-8. "
            f"{expected}"
        ) from error


def _json(path: Path, text: str, keys: Sequence[str], what: str, expected: str) -> Table:
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except ValueError as error:
        lines = text.strip().split("\n")
        if len(lines) > 1 and lines[0].startswith("{") and lines[0].rstrip().endswith("}"):
            return Table(_lines(path, text, what), {})  # named .json, as many are
        raise InputError(
            f"The {what} {str(path)!r} is not JSON: {error}. {KINDS} are read, by their names. "
            f"{expected}"
        ) from error
    if isinstance(content, list):
        return Table(content, {})
    whole = content if isinstance(content, dict) else {}
    there = [key for key in keys if isinstance(whole.get(key), list)]
    if len(there) != 1:
        raise InputError(
            f"The {what} {str(path)!r} holds no {keys[0]}, or several lists that may be (found: "
            f"{', '.join(map(repr, whole)) or 'nothing'}; read are {', '.join(keys)}). {expected}"
        )
    return Table(whole[there[0]], {k: v for k, v in whole.items() if k != there[0]})


def _lines(path: Path, text: str, what: str) -> list[Any]:
    rows = []
    # str.splitlines would also split at separators inside a text
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line, object_pairs_hook=_object))
            except ValueError as error:
                raise InputError(
                    f"The {what} {str(path)!r} is not JSON lines: line {number} is "
                    f"{line[:40]!r} ({error}). Write one object a line."
                ) from error
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"an object has the field {twice[0]!r} twice")
    return dict(pairs)


def _separated(path: Path, text: str, suffix: str, what: str) -> list[Any]:
    first = text.partition("\n")[0]
    comma = "\t" if suffix == ".tsv" else "," if "," in first else ";" if ";" in first else ","
    where = f"The {what} {str(path)!r}"
    try:
        table = list(csv.reader(text.splitlines(keepends=True), delimiter=comma, strict=True))
    except csv.Error as error:
        raise InputError(f"{where} is not CSV: {error}. Mend it, or save it as .jsonl.") from error
    rows = [row for row in table if row]
    # pandas writes its index under no name
    names = [name.strip() or "index" for name in rows[0]] if rows else []
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where} has the column {twice[0]!r} twice. Rename one of them.")
    ragged = [n for n, row in enumerate(rows, start=1) if len(row) != len(names)]
    if ragged:
        raise InputError(
            f"{where} has {len(names)} columns, and {len(rows[ragged[0] - 1])} in row "
            f"{ragged[0]}. Put texts that hold {comma!r} into quotes."
        )
    return [dict(zip(names, row, strict=True)) for row in rows[1:]]


def _parquet(path: Path, what: str) -> list[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"The {what} {str(path)!r} is a parquet file, which pyarrow reads, and that is not "
            "installed. Install it: pip install pyarrow."
        ) from error
    with reading(path, "Write the parquet file anew."):
        return [plain(row) for row in parquet.read_table(path).to_pylist()]
