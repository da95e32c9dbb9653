"""What the model's own logits say: log-probabilities of ids, and tokens of directions."""

from __future__ import annotations

from collections.abc import Callable

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from nnsight import TransformersModel

from tracekit.edits.steering import rows_of
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.load import model_provenance
from tracekit.model.record import remote_options
from tracekit.passes import batching
from tracekit.passes.labelling import wrap
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash, ids_of, token_texts


def logprobs(
    model: TransformersModel, transcripts: xr.Dataset, *, token_budget: int | None = None
) -> xr.DataArray:
    """The natural log-probability of each token given those before it: (prompt, token), in nats.

    NaN in holes and at each row's first token. `np.exp(-x.sel(token=slice(0, None)).mean("token"))`
    is the perplexity of the responses.

    >>> logprobs(model, runs).dims
    ('prompt', 'token')
    """
    tensors.require_transcripts(transcripts)
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    return scored(model, transcripts, real, token_budget, _logprobs)


def scored(
    model: TransformersModel,
    transcripts: xr.Dataset,
    places: Bool[np.ndarray, "prompt token"],
    token_budget: int | None,
    compute: Callable[[TransformersModel, xr.Dataset, list[int]], list[np.ndarray]],
) -> xr.DataArray:
    """What `compute` gives the `places` of each of some rows, in batches: (prompt, token), in nats.

    NaN elsewhere.
    """
    budget = token_budget or batching.default_budget(model, parts=2)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    filled = np.full(places.shape, np.nan, np.float32)
    for rows, values in batching.over(plan, lambda rows: compute(model, transcripts, rows)):
        for row, scores in zip(rows, values, strict=True):
            filled[row, places[row]] = scores
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "ids": ids_hash(transcripts),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    array = wrap(filled[:, :, None, None], transcripts, [0])
    array = array.isel(layer=0, dim=0, drop=True).rename("logprob")
    return stamp(array, made_with)


def next_tokens(
    model: TransformersModel,
    transcripts: xr.Dataset,
    *,
    top: int = 10,
    token_budget: int | None = None,
) -> xr.Dataset:
    """The likeliest tokens that each row goes on with: over (prompt, top), likeliest first.

    `id`, `text` and `logprob` (nats).

    Errors: `ValueError` for more tokens than the vocabulary has, or none.

    >>> next_tokens(model, tk.encode(model, ["Is snow white?"]), top=3).sizes["top"]
    3
    """
    budget = token_budget or batching.default_budget(model)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    shape = (transcripts.sizes["prompt"], top)
    scores, ids = np.full(shape, np.nan), np.full(shape, -1)
    for rows, values in batching.over(plan, lambda rows: _next(model, transcripts, rows)):
        if not 0 < top <= values.shape[1]:
            raise InputError(
                f"The {top} likeliest tokens were asked for; the vocabulary has {values.shape[1]}. "
                "Give 1 or more, and no more than that."
            )
        best = values.topk(top)
        scores[rows], ids[rows] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    named = {"id": ids, "text": token_texts(model.tokenizer, ids), "logprob": scores}
    coords = {"prompt": ids_of(transcripts), "top": np.arange(top, dtype=np.int32)}
    made = xr.Dataset({k: (("prompt", "top"), v) for k, v in named.items()}, coords)
    return stamp(made, {**read(transcripts), **model_provenance(model)})


def _next(model: TransformersModel, transcripts: xr.Dataset, rows: list[int]) -> torch.Tensor:
    made = batching.batch(model, transcripts, rows)
    options = remote_options(model)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        last = nnsight.save(head.read(model)[:, -1].float().log_softmax(-1))
    return last


def _logprobs(
    model: TransformersModel, transcripts: xr.Dataset, rows: list[int]
) -> list[np.ndarray]:
    made = batching.batch(model, transcripts, rows)
    ids = made.input_ids
    options = remote_options(model)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        saved = nnsight.save(head.of_next(head.read(model), ids))
    scores = saved.float().cpu()
    nan = torch.full((len(rows), 1), torch.nan)
    whole = torch.cat([nan, scores], 1)
    first = made.attention_mask.argmax(1)
    whole[torch.arange(len(rows)), first] = torch.nan
    mask = made.attention_mask.bool()
    return [whole[n][mask[n]].numpy() for n in range(len(rows))]
