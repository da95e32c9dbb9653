"""One forward of a prompt for all of its samples."""

from __future__ import annotations

import inspect

import torch
from nnsight import TransformersModel
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from tracekit.model.load import device_of, edits_of
from tracekit.model.record import origin
from tracekit.transcripts.padded import Batch

# keys and values alone, row by row; a hybrid layer is a DynamicLayer too, and has a state besides
KEPT = (DynamicLayer, DynamicSlidingWindowLayer)


def shared_cache(model: TransformersModel, batch: Batch) -> Cache | None:
    """The keys and values of each row's prompt but for its last token, each text read once.

    None where that saves less than half of the rows, where edits read the prompt (they are told
    which row they see), for a remote model, and for one that keeps more than keys and values.
    """
    width = batch.input_ids.shape[1] - 1
    taken = inspect.signature(model._module.forward).parameters
    if width < 1 or edits_of(model) or origin(model).remote:
        return None
    if not {"past_key_values", "use_cache"} <= set(taken):
        return None
    first, row_of = _distinct(batch)
    if 2 * len(first) > len(row_of):
        return None
    inputs = {name: values[first, :width] for name, values in batch.model_inputs.items()}
    # a prompt of one token, padded: nothing of it is in this forward
    if not bool(inputs["attention_mask"].any(1).all()):
        return None
    # no token is chosen from this forward: one row of logits is the least that it computes
    least = {"logits_to_keep": 1} if model._module._supports_logits_to_keep() else {}
    with torch.no_grad(), model.trace(inputs, use_cache=True, **least):
        if least and device_of(model).type == "cpu":
            # a strided view, as in a generation's first step
            model.lm_head.input = model.lm_head.input.contiguous()
        cache = model.output.past_key_values.save()
    if not isinstance(cache, Cache) or any(type(layer) not in KEPT for layer in cache.layers):
        return None
    cache.batch_select_indices(torch.tensor(row_of))  # on the CPU: layers may lie on several cards
    return cache


def _distinct(batch: Batch) -> tuple[list[int], list[int]]:
    """The first row of each distinct prompt, and which of those each row is."""
    seen: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    row_of: list[int] = []
    for number, (ids, mask) in enumerate(zip(batch.input_ids, batch.attention_mask, strict=True)):
        key = tuple(ids[mask.bool()].tolist())
        if key not in seen:
            seen[key] = len(first)
            first.append(number)
        row_of.append(seen[key])
    return first, row_of
