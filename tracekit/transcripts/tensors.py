"""Transcripts to padded tensors, and tensors back to labels."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from tracekit.errors import InputError, InputTypeError
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch


def require_transcripts(transcripts: object) -> None:
    """Errors: `TypeError` for anything but transcripts, such as a text; `ValueError` for one row
    without its dim."""
    if not isinstance(transcripts, xr.Dataset) or "token_id" not in transcripts:
        raise InputTypeError(
            f"Transcripts are needed, and this is {reprlib.repr(transcripts)} "
            f"({type(transcripts).__name__}). Make them with tk.encode(model, [text, …]) or "
            "tk.generate; one text alone is a list of one."
        )
    lacking = [dim for dim in ("prompt", "token") if dim not in transcripts["token_id"].dims]
    if lacking:
        raise InputError(
            f"These transcripts have lost the dim {lacking[0]!r}, as .isel({lacking[0]}=0) of one "
            f"row or token does. Keep it with a list: runs.isel({lacking[0]}=[0])."
        )
    if transcripts["token_id"].dtype.kind not in "iu":
        raise InputTypeError(
            f"These transcripts have ids of {transcripts['token_id'].dtype}, as rows of other "
            "lengths have that xarray joined: holes are NaN. Join them with "
            "fill_value={'token_id': -1, 'role': 'pad', 'token_text': ''}."
        )


def lengths(transcripts: xr.Dataset) -> Int[np.ndarray, prompt]:
    """The number of real tokens of each row. Errors: `TypeError` for anything but transcripts."""
    require_transcripts(transcripts)
    return (transcripts.token_id >= 0).sum("token").values


def prompt_hashes(transcripts: xr.Dataset) -> list[str]:
    """A hash of each row's prompt ids (those before the response)."""
    before = transcripts.token_id.transpose("prompt", "token").sel(token=slice(None, -1)).values
    return [digest(row[row >= 0].tolist()) for row in before]


def batch(transcripts: xr.Dataset, rows: Sequence[int] | None = None, pad: int = 0) -> Batch:
    """Rows of transcripts as one left-padded batch."""
    chosen = transcripts if rows is None else transcripts.isel(prompt=list(rows))
    ids = chosen.token_id.transpose("prompt", "token").values
    sizes = (ids >= 0).sum(1)
    width = int(sizes.max())
    padded = np.full((len(ids), width), pad, np.int64)
    mask = np.zeros_like(padded)
    for n, size in enumerate(sizes):
        padded[n, width - size :] = ids[n][ids[n] >= 0]
        mask[n, width - size :] = 1
    starts = width - sizes + _before(chosen)
    names = tuple(ids_of(chosen))
    return Batch(torch.as_tensor(padded), torch.as_tensor(mask), torch.as_tensor(starts), names)


def _before(transcripts: xr.Dataset) -> Int[np.ndarray, prompt]:
    """How many tokens of each row lie before label 0: fewer than its prompt where that was cut."""
    token = transcripts["token"].values
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    if not (np.diff(token) > 0).all():
        raise InputError(
            f"These transcripts have the token labels {reprlib.repr(token.tolist())}; a model "
            "reads them from the first to the last. Put them in order: runs.sortby('token')."
        )
    there = real.any(axis=1)
    first, last = real.argmax(axis=1), real.shape[1] - 1 - real[:, ::-1].argmax(axis=1)
    whole = (token[last] - token[first] + 1 == real.sum(axis=1)) & (token[first] <= 0) | ~there
    if not whole.all():
        raise InputError(
            f"The row {ids_of(transcripts)[int(np.argmin(whole))]!r} lacks tokens between those "
            "it has, or before the response's first: what is left is another text, and labels say "
            "where in the whole one. Take one stretch that reaches label 0, such as "
            "runs.sel(token=slice(None, 8)), or encode the text that is meant."
        )
    return (real & (token < 0)).sum(axis=1)


def inputs(transcripts: xr.Dataset) -> dict[str, torch.Tensor]:
    """Input ids and attention mask, left-padded, for your own `model.trace(inputs(runs))`.

    >>> {name: tuple(value.shape) for name, value in inputs(runs).items()}
    {'input_ids': (3, 46), 'attention_mask': (3, 46)}
    """
    require_transcripts(transcripts)
    return batch(transcripts).model_inputs
