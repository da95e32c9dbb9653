"""Why a response ended, and where a stop sequence cuts it."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.passes.generating.decoding import end_ids
from tracekit.transcripts.encode import ids_hash


def cut(
    model: tk.Model, runs: xr.Dataset, stops: Sequence[Sequence[str]], wanted: int
) -> tuple[xr.Dataset, list[str]]:
    """The transcripts up to the first stop sequence of each row, and why each ended.

    `stops` are each row's stop sequences, `wanted` the tokens that were asked for. The text of a
    row is without the stop sequence; of its ids the last completes it. The reasons are
    inspect_ai's: "stop", "max_tokens", or "model_length" where there was less room than that.

    >>> cut(model, runs, [["."]] * 3, 100)[1]
    ['stop', 'stop', 'stop']
    """
    ids, texts = runs.token_id.values.copy(), [str(text) for text in runs.response.values]
    after = np.flatnonzero(runs.token.values >= 0)
    ends, ended = set(end_ids(model)), []
    for row, mine in enumerate(stops):
        said = [int(one) for one in ids[row, after] if one >= 0]
        places = [texts[row].find(stop) for stop in mine if stop and stop in texts[row]]
        if places:
            texts[row] = texts[row][: min(places)]
            ids[row, after[_until(model.tokenizer, said, mine) :]] = -1
        full = "max_tokens" if len(said) >= wanted else "model_length"
        ended.append("stop" if places or said[-1] in ends else full)
    return _with(runs, ids, texts), ended


def _until(tokenizer: Any, said: Sequence[int], stops: Sequence[str]) -> int:
    """How many ids it takes until their text holds a stop sequence."""

    def holds(count: int) -> bool:
        text = tokenizer.decode(said[:count], skip_special_tokens=True)
        return any(stop in text for stop in stops if stop)

    return bisect.bisect_left(range(1, len(said) + 1), True, key=holds) + 1


def _with(runs: xr.Dataset, ids: np.ndarray, texts: list[str]) -> xr.Dataset:
    if texts == runs.response.values.tolist():
        return runs
    lost = ids != runs.token_id.values
    made = runs.assign(
        token_id=(("prompt", "token"), ids), response=("prompt", np.array(texts, dtype=np.str_))
    ).assign_coords(
        role=(("prompt", "token"), np.where(lost, "pad", runs.role.values)),
        token_text=(("prompt", "token"), np.where(lost, "", runs.token_text.values)),
    )
    made = made.isel(token=slice(None, int(np.flatnonzero((ids >= 0).any(0)).max()) + 1))
    return tk.stamp(made, {**tk.provenance(runs), "ids": ids_hash(made)})
