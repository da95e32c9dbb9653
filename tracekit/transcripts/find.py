"""Where something stands in transcripts: the tokens of a text, a role or a turn, as a selection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Shaped

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import FOUND_ID
from tracekit.transcripts.tensors import require_transcripts

Text = str | re.Pattern[str]
# one value a column: its place, its role, its text
Columns = Shaped[np.ndarray, "_"]
TEMPLATE = "template"
WHICH, MISSING = ("all", "last"), ("raise", "none")
# how `token_text` shows what would break a line
_SHOWN = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}


def find(
    transcripts: xr.Dataset,
    text: Text | None = None,
    *,
    role: str | None = None,
    turn: int | None = None,
    which: Literal["all", "last"] = "all",
    missing: Literal["raise", "none"] = "raise",
) -> xr.DataArray:
    """The tokens of a text, or regular expression, of a role, or of a turn: (prompt, token), bool.

    `role` is "user", "assistant", "system" or, of raw prompts, "text"; `turn` counts what was said
    from 0 (−1: the last), of that role where one is given. Without a `text` it is all of their
    tokens. A text is looked for in each turn by itself, and without `role` and `turn` in the whole
    row, the template included. Every occurrence counts, and a token that it covers in part counts
    too; `which="last"` keeps the last token of each. A row without any is refused, or with
    `missing="none"` has no token. The result is what every `tokens=` (of captures and edits) and
    `.where` take; it knows the ids that it was made of, so that it acts on no others. A character
    that lies in several tokens (rare scripts, emoji) is not found.

    Errors: `ValueError` for rows that do not have it (the first is named), for an empty text,
    another `which` or `missing`, and where nothing was asked for.

    >>> find(runs, role="user", turn=0, which="last").sum("token").values.tolist()
    [1, 1, 1]
    """
    if text in ("", None) and role is None and turn is None:
        raise InputError(
            f"find was asked for the text {text!r}, no role and no turn. Give some of what the "
            "rows say, or a role, or a turn."
        )
    for name, value, words in (("which", which, WHICH), ("missing", missing, MISSING)):
        if value not in words:
            raise InputError(f"{name}={value!r} was asked for; there are {', '.join(words)}.")
    pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
    require_transcripts(transcripts)
    rows = [transcripts[name].transpose("prompt", "token").values for name in ("token_id", "role")]
    shown = transcripts.token_text.transpose("prompt", "token").values
    found = np.zeros(shown.shape, dtype=bool)
    for row, (ids, roles) in enumerate(zip(*rows, strict=True)):
        for columns in _parts(ids >= 0, roles.astype(str), role, turn):
            for covered in _covered(pattern, shown[row][columns]):
                found[row, columns[covered if which == "all" else covered[-1:]]] = True
    if missing == "raise":
        _refuse_missing(found, ids_of(transcripts), text, role, turn)
    beside = {FOUND_ID: rows[0], "token_text": shown}
    places = {name: transcripts.coords[name] for name in ("prompt", "token")}
    # the words ride along, so that tk.view shows what was found
    coords = {**places, **{n: (("prompt", "token"), v) for n, v in beside.items()}}
    return xr.DataArray(found, coords, dims=("prompt", "token"), name="found")


def _parts(
    real: Bool[np.ndarray, _], roles: Columns, role: str | None, turn: int | None
) -> list[Columns]:
    """The columns of each turn that is asked for; all in one where neither is."""
    there = np.flatnonzero(real)
    if role is None and turn is None:
        return [there]
    cuts = np.flatnonzero(roles[there][1:] != roles[there][:-1]) + 1
    turns = [part for part in np.split(there, cuts) if len(part) and roles[part[0]] != TEMPLATE]
    turns = [part for part in turns if role in (None, roles[part[0]])]
    if turn is None:
        return turns
    return [turns[turn]] if -len(turns) <= turn < len(turns) else []


def _covered(
    pattern: re.Pattern[str] | None, shown: Shaped[np.ndarray, " token"]
) -> Iterator[Columns]:
    """The places that each occurrence in the tokens' joined text touches; all without a pattern."""
    if pattern is None:
        yield np.arange(len(shown))
        return
    texts = [_plain(str(one)) for one in shown]
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts] if texts else ends
    for match in pattern.finditer("".join(texts)):
        if match[0]:
            yield np.flatnonzero((starts < match.end()) & (ends > match.start()))


def _plain(shown: str) -> str:
    for escaped, text in _SHOWN.items():
        shown = shown.replace(escaped, text)
    return shown


def _refuse_missing(
    found: Bool[np.ndarray, "prompt token"],
    names: list[str],
    text: Text | None,
    role: str | None,
    turn: int | None,
) -> None:
    without = [names[row] for row in range(len(names)) if not found[row].any()]
    if without:
        shown = text.pattern if isinstance(text, re.Pattern) else text
        asked = {"text": shown, "role": role, "turn": turn}
        said = ", ".join(f"{key}={value!r}" for key, value in asked.items() if value is not None)
        raise InputError(
            f"find was asked for {said}; {len(without)} of {len(names)} rows do not have it, the "
            f"first is {without[0]!r}. Give what all have, or missing='none'."
        )
