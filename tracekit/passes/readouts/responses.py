"""What a model foretells of responses alone, for less than a whole forward."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.edits.steering import rows_of
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.checks.probe import probe
from tracekit.model.load import device_of, model_provenance
from tracekit.model.record import origin, remote_options
from tracekit.model.threads import one_at_a_time
from tracekit.passes import batching
from tracekit.passes.generating.shared_prompts import shared_beginning
from tracekit.passes.generating.stepping import alike, slack
from tracekit.passes.readouts.logits import scored
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch

PROVED, REFUSED = "shared scores", "scores apart"
COMPARED = 3


def response_logprobs(
    model: TransformersModel, transcripts: xr.Dataset, *, token_budget: int | None = None
) -> xr.DataArray:
    """`tk.logprobs` of the responses' tokens alone: (prompt, token) from label 0 on, in nats.

    The head computes no logits of the prompts, and what all rows of a batch begin with (a system
    prompt) is read once where the model is proved to say the same so; values agree with those of
    `tk.logprobs` within rounding. NaN in holes.

    >>> int(response_logprobs(model, runs).token[0])
    0
    """
    places = transcripts.token_id.transpose("prompt", "token").values >= 0
    places &= transcripts.token.values >= 0
    return scored(model, transcripts, places, token_budget, _rows).sel(token=slice(0, None))


def expected_tokens(model: TransformersModel, transcripts: xr.Dataset) -> xr.DataArray:
    """In how many rows each token of the vocabulary is expected in the response: (id,).

    The sum of its probabilities over the positions of the response, whatever was said there, at
    most 1 a row. Computed as `response_logprobs`.

    >>> expected_tokens(model, runs).dims
    ('id',)
    """
    budget = batching.default_budget(model, parts=2)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    sums = batching.over(plan, lambda rows: _expected(model, transcripts, rows))
    counts = np.sum([part for _, part in sums], axis=0)
    array = xr.DataArray(counts, {"id": np.arange(len(counts))}, dims="id", name="expected")
    return stamp(array, {**read(transcripts), **model_provenance(model)})


def next_logprobs(
    model: TransformersModel,
    transcripts: xr.Dataset,
    ids: Sequence[int],
    *,
    before: Sequence[int] = (0,),
    token_budget: int | None = None,
) -> xr.DataArray:
    """The natural log-probability that each row goes on with some ids: (before, prompt, id).

    After all of its tokens, or `before` as many of its last ones. Computed as `response_logprobs`.

    Errors: `ValueError` for a row that has no more tokens than that.

    >>> next_logprobs(model, tk.encode(model, ["Is snow white?"]), [12, 34]).dims
    ('before', 'prompt', 'id')
    """
    sizes, most = tensors.lengths(transcripts), max(before)
    if min(before) < 0 or most >= sizes.min():
        raise InputError(
            f"What follows {list(before)} tokens before the end was asked for; the shortest row "
            f"has {int(sizes.min())}. Take numbers from 0 to less than that."
        )
    plan = batching.plan(sizes.tolist(), token_budget or batching.default_budget(model))
    filled = np.full((len(before), transcripts.sizes["prompt"], len(ids)), np.nan)
    places = [-1 - n for n in before]

    def following(rows: list[int]) -> np.ndarray:
        made = batching.batch(model, transcripts, rows)
        ends = torch.full_like(made.starts, made.input_ids.shape[1] - most)
        logits = _last(
            model, dataclasses.replace(made, starts=ends), functools.partial(_proved, model)
        )
        # of each row on its own: a float32 copy of all would be large
        each = [row[places].float().log_softmax(-1)[:, list(ids)] for row in logits]
        return torch.stack(each, 1).cpu().numpy()

    for rows, values in batching.over(plan, following):
        filled[:, rows] = values
    coords = {"before": list(before), "prompt": ids_of(transcripts), "id": list(ids)}
    array = xr.DataArray(filled, coords, dims=("before", "prompt", "id"), name="logprob")
    return stamp(array, {**read(transcripts), **model_provenance(model)})


def _expected(model: TransformersModel, transcripts: xr.Dataset, rows: list[int]) -> np.ndarray:
    made = batching.batch(model, transcripts, rows)
    logits = _last(model, made, functools.partial(_proved, model))
    behind = made.input_ids.shape[1] - made.starts
    # a position's logits are of the next token: from the last of the prompt on, without the last
    parts = [row[-n - 1 : -1] for row, n in zip(logits, behind.tolist(), strict=True)]
    sums = [part.float().softmax(-1).sum(0).clamp(max=1.0) for part in parts]
    return torch.stack(sums).sum(0).cpu().numpy()


def _rows(model: TransformersModel, transcripts: xr.Dataset, rows: list[int]) -> list[np.ndarray]:
    made = batching.batch(model, transcripts, rows)
    scores = _scores(model, made, functools.partial(_proved, model))
    behind = made.input_ids.shape[1] - made.starts
    values = scores.float().cpu().numpy()
    return [row[len(row) - n :] for row, n in zip(values, behind.tolist(), strict=True)]


def _scores(
    model: TransformersModel, batch: Batch, holes: Callable[[], bool]
) -> Float[torch.Tensor, "row following"]:
    """The log-probability of each of the last columns' ids, of as many as the longest response."""
    logits = _last(model, batch, holes)
    return head.of_next(logits, batch.input_ids[:, -logits.shape[1] :])


def _last(
    model: TransformersModel, batch: Batch, holes: Callable[[], bool]
) -> Float[torch.Tensor, "row column vocabulary"]:
    """The logits of the last columns, from the token before the longest response on."""
    apart, cache = shared_beginning(model, batch, 0, holes)
    common = 0 if cache is None else int(cache.get_seq_length())
    inputs: dict[str, Any] = {**apart.model_inputs}
    kept = int((batch.input_ids.shape[1] - batch.starts).max()) + 1
    options = remote_options(model)
    if cache is not None:
        inputs["position_ids"] = (apart.attention_mask.cumsum(1) - 1).clamp(min=0)[:, common:]
        inputs["input_ids"] = apart.input_ids[:, common:]
        options |= {"past_key_values": cache, "use_cache": True}
    fewer = not origin(model).remote and model._module._supports_logits_to_keep()
    options |= {"logits_to_keep": kept} if fewer else {}
    strided = fewer and device_of(model).type == "cpu"
    with torch.no_grad(), rows_of(model, apart), model.trace(inputs, **options):
        if strided:
            # a strided view, which torch multiplies row by row on a CPU
            model.lm_head.input = model.lm_head.input.contiguous()
        saved = nnsight.save(head.read(model)[:, -kept:])
    return saved


def _proved(model: TransformersModel) -> bool:
    """Whether rows that begin alike score the same when that is read once; proved once."""
    about = origin(model)
    with one_at_a_time():
        if not {PROVED, REFUSED} & about.proved:
            batch = alike(probe(about.root))
            batch = dataclasses.replace(batch, starts=batch.starts - COMPARED)
            takes = "position_ids" in inspect.signature(about.root._module.forward).parameters
            same = takes and "padding" not in about.refused and _same(about.root, batch)
            about.proved.add(PROVED if same else REFUSED)
        return PROVED in about.proved


def _same(model: TransformersModel, batch: Batch) -> bool:
    if shared_beginning(model, batch, 0, functools.partial(bool, True))[1] is None:
        return False
    once, each = (_scores(model, batch, functools.partial(bool, share)) for share in (True, False))
    return bool(((once - each).abs() <= slack(origin(model))).all())
