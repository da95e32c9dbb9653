"""Tokens that an adapter makes likelier on the bare model's own answers, said or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tracekit import Model
from tracekit.model.load import model_provenance
from tracekit.passes.readouts.responses import expected_tokens
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import token_texts

# a token that is expected in fewer prompts than this says nothing
LEAST_RATE = 0.002


def expected(model: Model, parts: Sequence[xr.Dataset]) -> xr.DataArray:
    """In what share of prompts each token is expected somewhere in the answer: (id,).

    By the model as it stands, on the answers of `parts`: the sum of a token's probabilities over
    the positions of the response, at most 1 a prompt, mean over prompts.
    """
    total = sum(expected_tokens(model, runs).values for runs in parts)
    shares = np.asarray(total) / sum(runs.sizes["prompt"] for runs in parts)
    array = xr.DataArray(shares, {"id": np.arange(len(shares))}, dims="id", name="expected")
    return stamp(array, {**read(parts[0]), **model_provenance(model)})


def sample(parts: Sequence[xr.Dataset], prompts: Sequence[str]) -> list[xr.Dataset]:
    """The rows of some prompts, of each part that has any."""
    wanted = [runs.prompt.isin(list(prompts)) for runs in parts]
    return [runs.isel(prompt=w.values) for runs, w in zip(parts, wanted, strict=True) if w.any()]


def rising(
    model: Model, on: xr.DataArray, others: Mapping[str, xr.DataArray], most: int = 12
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
