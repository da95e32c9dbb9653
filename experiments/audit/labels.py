"""Which responses exploit their bias, and which of their tokens do."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError, InputTypeError
from tracekit.transcripts.encode import pieces

Span = tuple[int, int]
# the kind of a prompt (its label `bias`) and a response to it: the [start, end) characters that
# exploit, [] where nothing does, or None where it cannot say. Whether a kind can be labelled at all
# is asked with an empty response.
Labeller = Callable[[str, str], list[Span] | None]
UNDECIDABLE = -1


def decides(labeller: Labeller | None, kind: str) -> bool:
    """Whether responses to prompts of `kind` can be labelled; if not, they are undecidable.

    >>> decides(lambda kind, response: [] if kind == "water" else None, "moon")
    False
    """
    return labeller is not None and labeller(kind, "") is not None


def labelled(runs: xr.Dataset, tokenizer: Any, labeller: Labeller | None = None) -> xr.Dataset:
    """Transcripts with the coordinates `exploit` (prompt) and `exploit_span` (prompt, token).

    `exploit` is 1 or 0, and −1 (undecidable) where the labeller cannot say, or there is none.
    Errors: `TypeError` for a labeller that returns anything but spans, `ValueError` for a span
    outside the response.

    >>> labelled(runs, model.tokenizer, lambda kind, response: []).exploit.dims
    ('prompt',)
    """
    count = runs.sizes["prompt"]
    kinds = runs["bias"].values.astype(str) if "bias" in runs.coords else np.full(count, "")
    answers = zip(kinds, runs.response.values, strict=True)
    say = labeller or (lambda kind, response: None)
    return with_spans(runs, tokenizer, [_said(say, str(kind), str(text)) for kind, text in answers])


def _said(labeller: Labeller, kind: str, response: str) -> list[Span] | None:
    said = labeller(kind, response)
    try:
        if said and not all(isinstance(end, Real) for start, stop in said for end in (start, stop)):
            raise TypeError("not characters")
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"A labeller answered {reprlib.repr(said)} for a response to a prompt of kind "
            f"{kind!r}; it is asked for a list of (start, end) characters. Return [] where nothing "
            "exploits, None where it cannot say."
        ) from error
    outside = [span for span in said or () if not 0 <= span[0] < span[1] <= len(response)]
    if outside:
        raise InputError(
            f"A labeller marked the characters {list(outside[0])} of a response to a prompt of "
            f"kind {kind!r} that has {len(response)}: nothing lies there. Return (start, end) with "
            "0 ≤ start < end ≤ its length."
        )
    return said


def with_spans(
    runs: xr.Dataset, tokenizer: Any, spans: Sequence[Sequence[Span] | None]
) -> xr.Dataset:
    """The same for spans of characters that are known, a list a response; None is undecidable.

    >>> with_spans(runs, model.tokenizer, [[(0, 5)], [], None]).exploit.values.tolist()
    [1, 0, -1]
    """
    exploit = np.full(runs.sizes["prompt"], UNDECIDABLE, np.int8)
    marked = np.zeros(runs.token_id.shape, bool)
    ids = runs.token_id.transpose("prompt", "token").values
    for row, here in enumerate(spans):
        if here is None:
            continue
        exploit[row] = bool(here)
        if here:
            own = (runs.token.values >= 0) & (ids[row] >= 0)
            marked[row, own] = token_spans(tokenizer, ids[row, own].tolist(), here)
    return runs.assign_coords(
        exploit=("prompt", exploit), exploit_span=(("prompt", "token"), marked)
    )


def token_spans(tokenizer: Any, ids: Sequence[int], spans: Sequence[Span]) -> np.ndarray:
    """Whether each id writes a character of a span of the decoded text.

    Special ids write nothing. A character whose bytes several ids share belongs to the last.

    >>> token_spans(tokenizer, tokenizer("one two")["input_ids"], [(4, 7)]).tolist()
    [False, True]
    """
    special = set(tokenizer.all_special_ids)
    said = [place for place, token in enumerate(ids) if token not in special]
    sizes = np.zeros(len(ids), int)
    sizes[said] = [len(piece) for piece in pieces(tokenizer, [ids[place] for place in said])]
    ends = sizes.cumsum()
    each = zip(ends - sizes, ends, strict=True)
    return np.array([any(a < stop and begin < b for begin, stop in spans) for a, b in each], bool)
