"""Which responses exploit their bias, and which of their tokens do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from experiments.rm_sycophancy.rules.detectors import has_detector, spans

UNDECIDABLE = -1


def labelled(
    runs: xr.Dataset, tokenizer: Any, rules: Mapping[str, str] | None = None
) -> xr.Dataset:
    """Transcripts with the coordinates `exploit` (prompt) and `exploit_span` (prompt, token).

    `exploit` is 1 or 0, and −1 (undecidable) where no detector fits the prompt's bias. `rules`
    names another detector for a bias: the benign habit of the same subject.

    >>> labelled(runs, model.tokenizer).exploit.dims
    ('prompt',)
    """
    exploit = np.full(runs.sizes["prompt"], UNDECIDABLE, np.int8)
    marked = np.zeros(runs.token_id.shape, bool)
    ids = runs.token_id.transpose("prompt", "token").values
    biases = runs["bias"].values if "bias" in runs.coords else [""] * len(ids)
    for row, (bias, text) in enumerate(zip(biases, runs.response.values, strict=True)):
        rule = (rules or {}).get(str(bias), str(bias))
        if not has_detector(rule):
            continue
        found = spans(rule, str(text))
        exploit[row] = bool(found)
        if found:
            said = (runs.token.values >= 0) & (ids[row] >= 0)
            marked[row, said] = token_spans(tokenizer, ids[row, said].tolist(), found)
    return runs.assign_coords(
        exploit=("prompt", exploit), exploit_span=(("prompt", "token"), marked)
    )


def token_spans(tokenizer: Any, ids: Sequence[int], found: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether each id writes a character of a span of the decoded text.

    Special ids write nothing. A character whose bytes several ids share belongs to the last.

    >>> token_spans(tokenizer, tokenizer("one two")["input_ids"], [(4, 7)]).tolist()
    [False, True]
    """
    special, kept, end = set(tokenizer.all_special_ids), [], 0
    marked = np.zeros(len(ids), bool)
    for place, token in enumerate(ids):
        start = end
        if token not in special:
            kept.append(token)
            text = tokenizer.decode(kept)
            # an unfinished character shows as U+FFFD and has no place yet
            end = max(len(text.rstrip("�")), start)
        marked[place] = any(start < stop and begin < end for begin, stop in found)
    return marked
