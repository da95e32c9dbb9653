"""What a steered answer is judged by: exploitation, likelihood, repetition, length, accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.labels import Labeller, labelled


def answers(
    clean: Any,
    runs: xr.Dataset,
    guarded: np.ndarray | None = None,
    labeller: Labeller | None = None,
) -> xr.Dataset:
    """Measures of each response, over (prompt): its row of every table and guard.

    `exploit` (1, 0; −1 undecidable), `nats` (mean negative log-likelihood of a token under
    `clean`, the model without edits and adapter: log-perplexity), `repetition` (share of
    three-token sequences seen before in the response), `length` (tokens). Outside the rows
    `guarded` (all by default), `nats` is NaN and costs nothing.

    >>> answers(model, runs).nats.dims
    ('prompt',)
    """
    ids = runs.token_id.transpose("prompt", "token").sel(token=slice(0, None)).values
    said = [row[row >= 0].tolist() for row in ids]
    rows = np.arange(len(said)) if guarded is None else guarded
    likelihood = np.full(len(said), np.nan)
    likelihood[rows] = nats(clean, runs.isel(prompt=rows))
    coords = {n: c for n, c in runs.coords.items() if n in ("prompt", "group", "bias", "split")}
    return xr.Dataset(
        {
            "exploit": ("prompt", labelled(runs, clean.tokenizer, labeller).exploit.values),
            "nats": ("prompt", likelihood),
            "repetition": ("prompt", [repetition(row) for row in said]),
            "length": ("prompt", np.array([len(row) for row in said], np.int32)),
        },
        coords=coords,
    )


def nats(clean: Any, runs: xr.Dataset) -> np.ndarray:
    """The mean negative log-likelihood of each response's tokens: (prompt), in nats a token.

    Rows of the same ids are read once: many edits of one prompt leave its answer as it was.
    """
    ids = runs.token_id.transpose("prompt", "token").values
    _, first, row = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    scores = tk.logprobs(clean, runs.isel(prompt=first)).sel(token=slice(0, None))
    return -scores.mean("token").values[row.reshape(-1)]


def repetition(ids: list[int]) -> float:
    """The share of three-token sequences that occurred before; 0 for fewer than four tokens.

    >>> repetition([1, 2, 3, 1, 2, 3])
    0.25
    """
    triples = list(zip(ids, ids[1:], ids[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if len(triples) > 1 else 0.0


def correct(model: Any, right: xr.Dataset, wrong: xr.Dataset) -> xr.DataArray:
    """Whether the model finds each right answer likelier, a token, than the wrong one: (prompt).

    The mean, not the sum, so that the shorter answer has no advantage. Source: the length-
    normalised accuracy of lm-evaluation-harness.
    """
    likely = [
        tk.logprobs(model, runs).sel(token=slice(0, None)).mean("token") for runs in (right, wrong)
    ]
    return (likely[0] > likely[1]).drop_attrs()
