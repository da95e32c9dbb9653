"""Scores of a probe as a table: prompts, labels, texts; as CSV too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import whole


def scores_table(
    scores: xr.DataArray,
    labels: xr.DataArray | None = None,
    *,
    texts: Mapping[str, str] | Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Scores as a table, a row a prompt (and target), with its labels; with `path` a CSV too.

    Columns: `prompt`, `target` where there are several, every label along the prompt (`group`,
    …), `label` where `labels` (prompt) or (prompt, target) are given, `text`, and `score`.

    Errors: `ValueError` for scores of tokens, and labels or texts of other prompts.

    >>> table = scores_table(traits.score(probe, clean, tokens="all", transfer=True))
    >>> table.columns[0], table.columns[-1], len(table)
    ('prompt', 'score', 3)
    """
    if "token" in scores.dims or "prompt" not in scores.dims:
        raise InputError(
            f"A table of scores was asked for, of scores over {scores.dims}; it has a row a "
            "prompt. Pool them (traits.score, tk.pool), or look at tokens with tk.highest."
        )
    along = [n for n, c in scores.coords.items() if c.dims == ("prompt",) and n != "prompt"]
    order = ["prompt", *(["target"] if "target" in scores.dims else [])]
    kept = scores.reset_coords([n for n in scores.coords if n not in (*order, *along)], drop=True)
    made = kept.rename("score").transpose(*order).to_dataframe().reset_index()
    if labels is not None:
        made["label"] = _matched(labels, scores, order)
    if texts is not None:
        made["text"] = _texts(texts, made["prompt"], scores)
    columns = [*order, *sorted(map(str, along)), "label", "text", "score"]
    made = made[[name for name in columns if name in made]]
    if path is not None:
        with whole(Path(path), 1) as part:
            made.to_csv(part, index=False)
    return made


def _matched(labels: xr.DataArray, scores: xr.DataArray, order: Sequence[str]) -> np.ndarray:
    if not set(labels.dims) <= set(order):
        raise InputError(
            f"The labels are over {labels.dims}, and a row of the table over {tuple(order)}. Give "
            "a label for each row, or each prompt."
        )
    for dim in map(str, labels.dims):
        mine = scores[dim].values.tolist()
        theirs = labels[dim].values.tolist() if dim in labels.coords else None
        if set(mine) - set(theirs or mine) or (theirs is None and labels.sizes[dim] != len(mine)):
            raise InputError(
                f"The labels do not match the scores along {dim!r}: {labels.sizes[dim]} for "
                f"{len(mine)}. Give one for each prompt of the scores."
            )
        labels = labels if theirs is None else labels.sel({dim: mine})
    bare = xr.DataArray(labels.values, dims=labels.dims)
    sizes = {dim: scores.sizes[dim] for dim in order}
    return np.ravel(bare.broadcast_like(xr.DataArray(np.empty([*sizes.values()]), dims=order)))


def _texts(
    texts: Mapping[str, str] | Sequence[str], prompts: pd.Series, scores: xr.DataArray
) -> list[str]:
    names = [str(name) for name in scores["prompt"].values]
    if not isinstance(texts, Mapping):
        if len(texts) != len(names):
            raise InputError(
                f"{len(texts)} texts were given for {len(names)} prompts; give one each."
            )
        texts = dict(zip(names, texts, strict=True))
    lacking = sorted(set(names) - set(texts))
    if lacking:
        raise InputError(f"No text was given for {len(lacking)} prompts, such as {lacking[0]!r}.")
    return [texts[str(name)] for name in prompts]
