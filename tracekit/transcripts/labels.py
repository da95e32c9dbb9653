"""Per-prompt labels as columns: which names and values a file can hold, and the rest refused."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tracekit.errors import InputError

# The names that files give to dims, to labels of their own and to values.
RESERVED = frozenset(
    (
        *("prompt", "token", "layer", "dim", "trait", "method", "extraction", "arm"),
        *("token_id", "token_text", "role", "prompt_length", "group", "text", "response"),
        *("residual", "attention", "mlp", "projection", "norm", "logprob", "gradient", "values"),
        *("rank", "top", "promoted", "logit"),
    )
)
# netCDF forbids these names, loses them (a space ends a coordinate's name), or takes them for the
# width of a text
_NAME = re.compile(r"(?!string\d+$)\w[^\s/\x00-\x1f\x7f]{0,63}")
EXACT = 1 << 53  # whole numbers up to here are exact as floats
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "numbers",
    float: "numbers",
    str: "text",
    list: "lists or objects",
    tuple: "lists or objects",
    dict: "lists or objects",
}


def require_names(names: Iterable[str], where: str) -> None:
    """Errors: `ValueError` for a label whose name is taken, or that no file can hold."""
    for name in names:
        if name in RESERVED:
            raise InputError(
                f"{where} has a label named {name!r}, a name that tracekit's files use themselves. "
                f"Rename it, for example to 'my_{name}'. "
                f"Taken are: {', '.join(sorted(RESERVED))}."
            )
        if not _NAME.fullmatch(name) or unicodedata.normalize("NFC", name) != name:
            raise InputError(
                f"{where} has a label named {name!a}, which a netCDF file cannot hold as a "
                "label. Rename it: at most 64 characters without spaces and '/', the first a "
                "letter or digit, not 'string' and a number, accents in composed form."
            )


def refuse_taken(there: Iterable[Any], wanted: Iterable[str], what: str) -> None:
    """Errors: `ValueError` for labels `there` that bear a name which `what` is about to give."""
    taken = sorted({str(name) for name in there} & set(wanted))
    if taken:
        raise InputError(
            f"{what} gives the name {taken[0]!r}, and the transcripts have a label of that name "
            f"(labels: {', '.join(sorted(map(str, there)))}). "
            f"Rename it: runs.rename({taken[0]}='my_{taken[0]}')."
        )


def require_text(text: str, what: str) -> None:
    """Errors: `ValueError` for half of a surrogate pair, which no file or tokenizer takes."""
    broken = re.search("[\ud800-\udfff]", text)
    if broken:
        raise InputError(
            f"{what} has {broken[0]!a} at character {broken.start()}: half of a character "
            "that was cut in two (a lone surrogate). Mend the text where it was cut."
        )


def columns(ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The labels of rows, a column each, by name.

    Text, whole numbers, numbers and true/false keep their type. Where a row has no value (or
    None), a text is empty, and a column of numbers or true/false is float64 with NaN (true is 1).
    Lists and objects become JSON text.

    Errors: `ValueError` naming the label and the prompts: for reserved names, for values of two
    kinds in one column, and for values that no file can hold.

    >>> columns(["a", "b"], [{"hits": 3}, {}])["hits"].tolist()
    [3.0, nan]
    """
    names = sorted({name for row in rows for name in row})
    require_names(names, f"The prompts ({ids[0]!r} …)")
    return {name: _column(name, ids, [row.get(name) for row in rows]) for name in names}


def missing(value: Any) -> bool:
    """Whether a label's value stands for none: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def _column(name: str, ids: Sequence[str], values: Sequence[Any]) -> np.ndarray:
    # numpy's scalars are the numbers they hold
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds: dict[str, tuple[str, Any]] = {}
    for row, value in zip(ids, plain, strict=True):
        if not missing(value):
            kinds.setdefault(_KINDS.get(type(value), type(value).__name__), (row, value))
    unknown = [kind for kind in kinds if kind not in _KINDS.values()]
    if len(kinds) > 1 or unknown:
        found = ", ".join(f"{k} ({str(v)[:30]!r} of {row!r})" for k, (row, v) in kinds.items())
        raise InputError(
            f"The label {name!r} holds {found}. A column is of one kind: text, numbers, true or "
            "false, or lists and objects (kept as JSON text). Write all its values as one of them."
        )
    kind = next(iter(kinds), "numbers")
    if kind == "text":
        return _texts(name, ids, ["" if missing(value) else value for value in plain])
    if kind == "lists or objects":
        return _texts(name, ids, ["" if missing(v) else _json(name, v) for v in plain])
    return _numbers(name, ids, plain)


def _numbers(name: str, ids: Sequence[str], values: Sequence[Any]) -> np.ndarray:
    whole = all(isinstance(value, int) for value in values)
    limit = (1 << 63) - 1 if whole else EXACT
    for row, value in zip(ids, values, strict=True):
        if isinstance(value, int) and abs(value) > limit:
            raise InputError(
                f"The label {name!r} of {row!r} is {value}, which a column of "
                f"{'64-bit whole numbers' if whole else 'floats'} cannot hold exactly. "
                "Write that column as text."
            )
    if whole:
        return np.array(values)
    return np.array([np.nan if missing(value) else float(value) for value in values])


def _texts(name: str, ids: Sequence[str], values: Sequence[str]) -> np.ndarray:
    for row, value in zip(ids, values, strict=True):
        require_text(value, f"The label {name!r} of {row!r}")
        if "\0" in value:
            raise InputError(
                f"The label {name!r} of {row!r} holds a NUL character, at which a netCDF text "
                "ends. Take it out."
            )
    return np.array(values, dtype=np.str_)


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise InputError(
            f"The label {name!r} holds {str(value)[:60]!r}, which is not JSON: {error}. "
            "Use text, numbers, true or false, and lists or objects of them."
        ) from error
