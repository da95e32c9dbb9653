"""What is said of one response: plain values by their labels, as a log keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk

DIMS = {"projections": ("trait", "layer"), "scores": ("probe",)}


@dataclass(frozen=True)
class Answer:
    """One response: its text, why it ended, and what was read of it.

    `read` holds plain values alone. `logprobs` are each token's text and its nats, or none.
    """

    text: str
    ended: str
    prompt_tokens: int
    response_tokens: int
    logprobs: list[tuple[str, float]]
    read: dict[str, Any]


def answer(
    runs: xr.Dataset,
    row: int,
    ended: str,
    found: Mapping[str, xr.DataArray],
    *,
    per_token: bool = False,
) -> Answer:
    """A row of the transcripts, with what was captured of it.

    `found` are projections (prompt, token, layer, trait), scores (prompt, token, probe) and
    log-probabilities (prompt, token), each where it was asked for.

    >>> said = tk.generate(model, runs, max_new_tokens=2, progress=False)
    >>> answer(said, 0, "max_tokens", {}).read["by"]["adapter"] is None
    True
    """
    mine = runs.isel(prompt=row)
    said = mine.sel(token=slice(0, None))
    said = said.isel(token=np.flatnonzero(said.token_id.values >= 0))
    name = str(mine["prompt"].values)
    values = {k: array.sel(prompt=name, token=said.token.values) for k, array in found.items()}
    texts = [str(text) for text in said.token_text.values]
    nats = values.pop("logprob").values.tolist() if "logprob" in values else []
    read = {"prompt": name, "response_ids": said.token_id.values.tolist(), **_means(values)}
    if per_token:
        read["tokens"] = {"text": texts, **{k: nested(v, DIMS[k]) for k, v in values.items()}}
    return Answer(
        text=str(mine.response.values),
        ended=ended,
        prompt_tokens=int(mine.prompt_length.values),
        response_tokens=len(texts),
        logprobs=list(zip(texts, nats, strict=False)),
        read={**read, **_made(runs)},
    )


def nested(array: xr.DataArray, dims: Sequence[str]) -> Any:
    """Values by the labels of `dims`, one in the other; what is left is a number or a list.

    >>> array = xr.DataArray([[0.5, 1.0]], dims=("trait", "layer"))
    >>> nested(array.assign_coords(trait=["a/b"], layer=[3, 4]), ("trait", "layer"))
    {'a/b': {'3': 0.5, '4': 1.0}}
    """
    if not dims:
        return array.values.tolist()
    dim, *rest = dims
    labels = array[dim].values.tolist()
    return {str(label): nested(array.isel({dim: n}), rest) for n, label in enumerate(labels)}


def _means(values: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    """Per trait and layer the mean over the response's tokens, per probe its pooled score."""
    made: dict[str, Any] = {}
    if "projections" in values:
        made["projections"] = nested(values["projections"].mean("token"), DIMS["projections"])
    if "scores" in values:
        scores = values["scores"].pooled
        made["scores"] = nested(scores, DIMS["scores"])
        scores = scores.isel(probe=np.flatnonzero(np.isfinite(scores.threshold.values)))
        made["over_threshold"] = nested(scores > scores.threshold, DIMS["scores"])
    return made


def _made(runs: xr.Dataset) -> dict[str, Any]:
    """What answered, and how: of the transcripts' provenance what is not the batch's."""
    text = dict(tk.provenance(runs)["text"])
    by = text.pop("by")
    text.pop("batches")
    kept = ("model", "revision", "weights", "dtype", "quantisation", "adapter", "edits")
    return {"by": {name: by[name] for name in kept}, "generated": text}
