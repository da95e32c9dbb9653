"""Tokens that an adapter makes likelier on the bare model's own answers, said or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.model import head
from tracekit.model.load import model_provenance
from tracekit.passes import batching
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import token_texts

# a token that is expected in fewer prompts than this says nothing
LEAST_RATE = 0.002


def expected(model: TransformersModel, parts: Sequence[xr.Dataset]) -> xr.DataArray:
    """In what share of prompts each token is expected somewhere in the answer: (id,).

    By the model as it stands, on the answers of `parts`: the sum of a token's probabilities over
    the positions of the response, at most 1 a prompt, mean over prompts.
    """
    total: torch.Tensor | float = 0.0
    for runs in parts:
        plan = batching.plan(
            tensors.lengths(runs).tolist(), batching.default_budget(model, parts=4)
        )
        for rows in plan:
            for _, sums in batching.run(rows, partial(_sums, model, runs)):
                total = total + sums
    shares = np.asarray(total) / sum(runs.sizes["prompt"] for runs in parts)
    array = xr.DataArray(shares, {"id": np.arange(len(shares))}, dims="id", name="expected")
    return stamp(array, {**read(parts[0]), **model_provenance(model)})


def sample(parts: Sequence[xr.Dataset], prompts: Sequence[str]) -> list[xr.Dataset]:
    """The rows of some prompts, of each part that has any."""
    wanted = [runs.prompt.isin(list(prompts)) for runs in parts]
    return [runs.isel(prompt=w.values) for runs, w in zip(parts, wanted, strict=True) if w.any()]


def rising(
    model: TransformersModel, on: xr.DataArray, others: Mapping[str, xr.DataArray], most: int = 12
) -> list[tuple[str, float, float]]:
    """The tokens expected in more prompts than with every other arm: (text, rate, their largest).

    In order of the ratio, with `LEAST_RATE` added to both.
    """
    highest = np.max([values.values for values in others.values()], axis=0)
    ratio = np.log((on.values + LEAST_RATE) / (highest + LEAST_RATE))
    order = np.argsort(-ratio)[:most]
    texts = token_texts(model.tokenizer, order)
    return [
        (str(text), float(on.values[n]), float(highest[n]))
        for text, n in zip(texts, order, strict=True)
        if ratio[n] > 0
    ]


def _sums(model: TransformersModel, runs: xr.Dataset, rows: Sequence[int]) -> torch.Tensor:
    made = tensors.batch(runs, rows, pad=model.tokenizer.pad_token_id or 0)
    columns = torch.arange(made.input_ids.shape[1])
    # the logits at a position are of the next token: from the last prompt token on
    where = (columns >= made.starts[:, None] - 1) & made.attention_mask.bool()
    where[:, -1] = False
    with torch.no_grad(), model.trace(made.model_inputs):
        logits = head.read(model)
        mask = where.to(logits.device)[..., None]
        sums = (logits.float().softmax(-1) * mask).sum(1).clamp(max=1.0).sum(0)
        saved = nnsight.save(sums)
    return saved.cpu()
