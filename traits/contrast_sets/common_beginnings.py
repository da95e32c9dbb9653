"""Texts of a group begin alike (twins): with that as their prompt, it is read once for all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from tracekit.passes.beginnings.planning import common_beginning


def as_prompts(
    runs: xr.Dataset, kept: Bool[np.ndarray, "prompt stretch token"]
) -> tuple[xr.Dataset, Bool[np.ndarray, "prompt stretch column"]] | None:
    """The same ids with each group's common beginning as its rows' prompt, and `kept` of those.

    Rows of one `group` begin alike; without that label each is read by itself. The transcripts
    have ids alone, for `tk.capture(…, share_prompts=True)`. A prompt ends at the first kept token
    of its group at the latest, since nothing before a prompt's last token can be kept, and has two
    tokens at least. Every row keeps some token; None where it is the first of one.

    >>> ids = xr.DataArray([[5, 6, 7, 8, -1], [5, 6, 9, 4, 3]], dims=("prompt", "token"))
    >>> runs = xr.Dataset({"token_id": ids}, coords={"prompt": ["a", "b"], "token": range(-5, 0)})
    >>> runs = runs.assign_coords(group=("prompt", ["pair", "pair"]))
    >>> last = np.zeros((2, 1, 5), bool)
    >>> last[0, 0, 3] = last[1, 0, 4] = True
    >>> again, kept = as_prompts(runs, last)
    >>> again.token_id.sel(token=slice(0, None)).values.tolist()
    [[7, 8, -1], [9, 4, 3]]
    >>> kept[:, 0].argmax(1).tolist()
    [3, 4]
    """
    ids = runs.token_id.transpose("prompt", "token").values
    real = ids >= 0
    place = real.cumsum(1) - 1
    chosen = np.asarray(kept.any(1))
    first = np.array([row[there][0] for row, there in zip(place, chosen, strict=True)])
    if (first < 1).any():
        return None
    texts = [row[there][: at + 1] for row, there, at in zip(ids, real, first, strict=True)]
    groups = runs["group" if "group" in runs.coords else "prompt"].values.tolist()
    begun = _common(texts, groups).clip(min=2)
    before, after = begun.max(), (real.sum(1) - begun).max()
    where = np.nonzero(real)[0], (place + (before - begun)[:, None])[real]
    laid = np.full((len(ids), before + after), -1, ids.dtype)
    laid[where] = ids[real]
    there = np.zeros((len(ids), kept.shape[1], before + after), bool)
    there.swapaxes(1, 2)[where] = kept.swapaxes(1, 2)[real]
    columns = np.arange(-before, after, dtype=np.int32)
    lengths = ("prompt", begun.astype(np.int32))
    made = xr.Dataset(
        {"token_id": (("prompt", "token"), laid)},
        coords={"prompt": runs.prompt.values, "token": columns, "prompt_length": lengths},
        attrs=runs.attrs,
    )
    return made, there


def _common(texts: Sequence[np.ndarray], groups: Sequence[str]) -> Int[np.ndarray, " prompt"]:
    """How many tokens each text begins with that all of its group begin with."""
    members = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    found = np.zeros(len(texts), int)
    for rows in members.values():
        mine = [texts[row] for row in rows]
        found[rows] = common_beginning(mine, most=max(map(len, mine)))
    return found
