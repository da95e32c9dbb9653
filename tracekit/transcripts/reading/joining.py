"""Labels from a table onto rows that are there: a judge's scores, an annotator's kinds."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from tracekit.errors import InputError, InputTypeError, brief
from tracekit.storage.row_files import plain, read_rows, typed
from tracekit.transcripts.labels import columns, refuse_taken

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
_IDS = ("prompt", "id", "prompt_id")
_EXPECTED = "Expected rows with the id of each prompt and its labels."


def join(
    array: Labelled,
    table: Any,
    *,
    on: str = "prompt",
    fields: Sequence[str] | None = None,
) -> Labelled:
    """The array (or transcripts) with a table's fields as labels along `prompt`.

    `table` is a path (CSV, TSV, JSON, JSON lines, parquet), a list of dicts, or a DataFrame. `on`
    is the label that rows are matched by, and the field of that name; for `on="prompt"` the field
    is `prompt`, `id` or `prompt_id`, and it may leave out the set's name (`3` for `set/3`).
    `fields` are those that are kept, all others by default. Rows of the table that match nothing
    are left out, with a warning; of several samples of a prompt (`on="group"`) each gets its row.

    Errors: `ValueError` for a prompt without a row, two rows of one, a label that is there already,
    and fields that the table lacks; `TypeError` for what is no labelled array, and no table.

    >>> rows = [{"id": n, "score": n / 2} for n in range(3)]
    >>> join(runs, rows).score.values.tolist()
    [0.0, 0.5, 1.0]
    """
    _require_labels(array)
    rows, all_text, where = _rows(table)
    field = _field(rows, on, where)
    by_key = {str(row[field]): row for row in rows if row.get(field) is not None}
    _refuse_twice([str(row[field]) for row in rows if row.get(field) is not None], field, where)
    keys = _matched(array, on, by_key, where)
    names = fields or [name for row in rows for name in row if name != field]
    names = list(dict.fromkeys(names))
    lacking = [name for name in names if not any(name in row for row in rows)]
    if lacking:
        raise InputError(f"{where} has no field {lacking[0]!r}. Its fields are {sorted(rows[0])}.")
    refuse_taken(array.coords, names, "A table that is joined")
    left = len(by_key) - len(set(keys))
    if left:
        warnings.warn(
            f"{where} has {left} of {len(by_key)} rows that match no prompt here; they are left "
            "out.",
            stacklevel=2,
        )
    chosen: list[dict[str, Any]] = [{} for _ in keys]
    for name in names:
        column = [by_key[key].get(name) for key in keys]
        for row, value in zip(chosen, typed(column) if all_text else column, strict=True):
            row[name] = value
    ids = [str(one) for one in array["prompt"].values]
    made = {name: ("prompt", column) for name, column in columns(ids, chosen).items()}
    return array.assign_coords(made)


def _require_labels(array: Any) -> None:
    if not isinstance(array, xr.DataArray | xr.Dataset):
        raise InputTypeError(
            f"join was given {brief(array)}, whose rows have no ids. Give transcripts (of "
            "tk.encode, tk.generate), or a labelled array (of tk.capture, tk.traces)."
        )


def _rows(table: Any) -> tuple[list[Mapping[str, Any]], bool, str]:
    path = isinstance(table, str | Path)
    if isinstance(table, Mapping | bytes) or not (path or hasattr(table, "__iter__")):
        raise InputTypeError(
            f"join was given {type(table).__name__} as its table. Give a path, a list of dicts, or "
            "a DataFrame."
        )
    if path:
        read = read_rows(Path(table), ("rows", "data", "labels"), "table", _EXPECTED)
        rows, all_text, where = read.rows, read.all_text, f"The table {str(table)!r}"
    else:
        frame = hasattr(table, "columns") and hasattr(table, "to_dict")
        rows = [plain(row) for row in (table.to_dict("records") if frame else table)]
        all_text, where = False, "The table"
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{where} has rows that are no objects, or none. {_EXPECTED}")
    return rows, all_text, where


def _field(rows: Sequence[Mapping[str, Any]], on: str, where: str) -> str:
    wanted = _IDS if on == "prompt" else (on,)
    there = [name for name in wanted if any(name in row for row in rows)]
    if not there:
        raise InputError(
            f"{where} was to be joined on {on!r}; its fields are {sorted(rows[0])}. Rename the one "
            f"that holds it to {wanted[0]!r}, or give on=."
        )
    return there[0]


def _matched(
    array: xr.DataArray | xr.Dataset, on: str, by_key: Mapping[str, Any], where: str
) -> list[str]:
    """The table's key of each row of the array."""
    if on not in array.coords or array[on].dims != ("prompt",):
        known = [str(name) for name, coord in array.coords.items() if coord.dims == ("prompt",)]
        raise InputError(
            f"A table was to be joined on {on!r}, and the labels along 'prompt' are "
            f"{', '.join(known) or 'none'}. Give one of these."
        )
    names = [str(plain(value)) for value in array[on].values]
    short = {name: name.partition("/")[2] if on in ("prompt", "group") else name for name in names}
    keys = [name if name in by_key else short[name] for name in names]
    named = {key: name for name, key in zip(names, keys, strict=True)}
    both = next((n for n, key in zip(names, keys, strict=True) if named[key] != n), None)
    if both is not None:
        key = short[both] if both not in by_key else both
        raise InputError(
            f"{where} has one row {key!r}, and {both!r} and {named[key]!r} are both of that name. "
            "Give the table the whole ids, with the set's name."
        )
    lacking = [name for name, key in zip(names, keys, strict=True) if key not in by_key]
    if lacking:
        raise InputError(
            f"{where} has no row for {len(lacking)} of {len(names)} prompts (first: "
            f"{lacking[0]!r}; its rows are {', '.join(map(repr, list(by_key)[:3]))} …). Add them, "
            "or select the prompts that it has."
        )
    return keys


def _refuse_twice(keys: Sequence[str], field: str, where: str) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise InputError(
            f"{where} has {len(twice)} values of {field!r} more than once (first: {twice[0]!r}). "
            "Give each prompt one row."
        )
