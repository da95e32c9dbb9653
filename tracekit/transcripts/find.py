"""Where a text stands in transcripts: its tokens as a selection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of

Which = Literal["all", "last"]
# how `token_text` shows what would break a line
_SHOWN = {"\\n": "\n", "\\t": "\t", "\\r": "\r"}


def find(
    transcripts: xr.Dataset,
    text: str | re.Pattern[str],
    which: Which = "all",
    missing: Literal["raise", "none"] = "raise",
) -> xr.DataArray:
    """The tokens that a text, or a regular expression, covers in each row: (prompt, token), bool.

    Every occurrence counts, over turns and templates, and a token that it covers in part counts
    too. `which="last"` keeps the last token of each occurrence. A row without it is refused, or
    with `missing="none"` has no token. The result is what `capture(tokens=…)`, `patch` and
    `.where` take. A character that lies in several tokens (rare scripts, emoji) is not found.

    Errors: `ValueError` for rows that do not have it (named), or an empty text.

    >>> find(runs, "answer", missing="none").dims
    ('prompt', 'token')
    """
    if isinstance(text, str) and not text:
        raise InputError("find was asked for an empty text. Give some of what the rows say.")
    pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
    shown = transcripts.token_text.transpose("prompt", "token").values.astype(str)
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    found = np.zeros(shown.shape, dtype=bool)
    for row, (texts, there) in enumerate(zip(shown, real, strict=True)):
        columns = np.flatnonzero(there)
        for covered in _covered(pattern, [_plain(str(t)) for t in texts[columns]]):
            found[row, columns[covered if which == "all" else covered[-1:]]] = True
    names = ids_of(transcripts)
    without = [names[row] for row in range(len(names)) if not found[row].any()]
    if without and missing == "raise":
        raise InputError(
            f"find was asked for {pattern.pattern!r}; {len(without)} of {len(found)} rows do not "
            f"have it, the first is {without[0]!r}. Give a text of all, or missing='none'."
        )
    coords = {name: transcripts.coords[name] for name in ("prompt", "token")}
    return xr.DataArray(found, coords, dims=("prompt", "token"), name="found")


def _covered(pattern: re.Pattern[str], texts: list[str]) -> Iterator[np.ndarray]:
    """The places in `texts` that each occurrence in the whole touches."""
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts] if texts else ends
    for match in pattern.finditer("".join(texts)):
        if match[0]:
            yield np.flatnonzero((starts < match.end()) & (ends > match.start()))


def _plain(shown: str) -> str:
    for escaped, text in _SHOWN.items():
        shown = shown.replace(escaped, text)
    return shown
