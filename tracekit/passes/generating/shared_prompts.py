"""What the rows of a batch begin with, read once: a prompt, or a part of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import nnsight
import torch
from nnsight import TransformersModel
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
)

from tracekit.model.load import device_of, edits_of
from tracekit.model.record import origin
from tracekit.transcripts.padded import Batch

# keys and values alone, row by row; a hybrid layer is a DynamicLayer too, and has a state besides
KEPT = (DynamicLayer, DynamicSlidingWindowLayer)
# of a batch's columns × rows: for less, a forward of its own is not worth it
WORTHWHILE = 1 / 8
# kinds of rotary position whose angles depend on how long the whole text is
LENGTHWISE = ("dynamic", "longrope")


def shared(
    model: TransformersModel,
    batch: Batch,
    more: int,
    holes: Callable[[], bool] = lambda: False,
) -> tuple[Batch, Cache | None]:
    """A batch with the keys and values of what its rows begin with, and its layout under them.

    Rows of few distinct prompts share all of a prompt but its last token. Else rows that begin
    alike (a system prompt) share that, where the model is proved to read on behind padding in the
    middle (`holes`): such a batch has its padding behind the common columns. `more` tokens a row
    can follow: then, on a CPU, there is room for them, since a step would otherwise copy all keys
    and values to put its own behind them.

    None and the batch as it is where either saves little, where edits read the prompt (they are
    told which row they see), for a remote model, and for one that keeps more than keys and values.
    """
    if not takes_cache(model):
        return batch, None
    first, row_of = distinct(batch)
    width = batch.input_ids.shape[1] - 1
    # a prompt of one token, padded: nothing of it is in the forward of all but the last
    whole = width >= 1 and bool(batch.attention_mask[:, :width].any(1).all())
    if whole and 2 * len(first) <= len(row_of):
        return batch, read_apart(model, batch, first, width, row_of, KEPT)
    return shared_beginning(model, batch, more, holes)


def shared_beginning(
    model: TransformersModel, batch: Batch, more: int, holes: Callable[[], bool]
) -> tuple[Batch, Cache | None]:
    """`shared`, of what all rows of a batch begin with alone; texts may be there behind prompts."""
    apart, common = beginning(batch)
    if not common or not takes_cache(model) or not plain_positions(model) or not holes():
        return batch, None
    cache = read_apart(model, apart, [0], common, [0] * len(batch.input_ids), (DynamicLayer,))
    if cache is None:
        return batch, None
    if device_of(model).type == "cpu":
        for number, layer in enumerate(cache.layers):
            if isinstance(layer, DynamicLayer):
                cache.layers[number] = _roomy(layer, batch.input_ids.shape[1] + more)
    return apart, cache


def beginning(batch: Batch, worthwhile: float = WORTHWHILE) -> tuple[Batch, int]:
    """The batch with what all rows begin with in its first columns, and how many those are.

    Padding comes behind them. 0, and the batch as it is, where that is less than the share
    `worthwhile` of all its columns × rows. Each row keeps the last token of its prompt at least
    behind them.

    >>> ids = torch.tensor([[0, 5, 6, 7], [5, 6, 8, 9]])
    >>> batch = Batch(ids, (ids > 0).long(), torch.tensor([4, 4]), ("a", "b"))
    >>> beginning(batch)[0].input_ids.tolist()
    [[5, 6, 0, 7], [5, 6, 8, 9]]
    """
    ids, mask = batch.input_ids, batch.attention_mask.bool()
    rows, width = ids.shape
    texts = [row[real] for row, real in zip(ids, mask, strict=True)]
    pads = width - mask.sum(1, keepdim=True)
    least = max(int((batch.starts - pads[:, 0]).min()) - 1, 0)
    heads = torch.stack([text[:least] for text in texts])
    common = int((heads == heads[0]).all(0).long().cumprod(0).sum())
    if common * (rows - 1) < worthwhile * rows * width:
        return batch, 0
    columns = torch.arange(width).expand(rows, -1)
    # a row's padding goes from its front to behind the common columns
    where = torch.where(columns < common, columns + pads, columns - common)
    where = torch.where((columns >= common) & (columns >= common + pads), columns, where)
    held = batch.attention_mask.gather(1, where)
    return Batch(ids.gather(1, where), held, batch.starts, batch.prompts), common


def read_apart(
    model: TransformersModel,
    batch: Batch,
    rows: Sequence[int],
    width: int,
    row_of: Sequence[int],
    kept: tuple[type, ...],
) -> Cache | None:
    """The first `width` columns of some rows, read, and repeated as `row_of` says."""
    inputs = {name: values[rows, :width] for name, values in batch.model_inputs.items()}
    # no token is chosen from this forward: one row of logits is the least that it computes
    least = {"logits_to_keep": 1} if model._module._supports_logits_to_keep() else {}
    with torch.no_grad(), model.trace(inputs, use_cache=True, **least):
        if least and device_of(model).type == "cpu":
            # a strided view, as in a generation's first step
            model.lm_head.input = model.lm_head.input.contiguous()
        cache = nnsight.save(getattr(model.output, "past_key_values", None))
    # a cache of another class may keep more beside its layers
    if type(cache) is not DynamicCache or any(type(layer) not in kept for layer in cache.layers):
        return None
    cache.batch_select_indices(torch.tensor(row_of))  # on the CPU: layers may lie on several cards
    return cache


def _roomy(layer: DynamicLayer, columns: int) -> StaticLayer:
    """The same keys and values in a layer of so many columns."""
    made = StaticLayer(columns)
    if layer.keys is not None and layer.values is not None:
        made.update(layer.keys, layer.values)
    return made


def takes_cache(model: TransformersModel) -> bool:
    """Whether keys and values of before can be given to it, unread by edits."""
    taken = inspect.signature(model._module.forward).parameters
    known = {"past_key_values", "use_cache"} <= set(taken)
    return known and not edits_of(model) and not origin(model).remote


def plain_positions(model: TransformersModel) -> bool:
    """Whether nothing in it counts columns, or asks how long a text is, that a probe cannot see."""
    config = model._module.config.get_text_config()
    # windows of GPT-Neo and Doge count columns; Falcon's ALiBi takes a mask of one row a text alone
    counts = ("attention_types", "alibi", "keep_window_size")
    counting = any(getattr(config, name, None) for name in counts)
    rotary = str(getattr(config, "rope_parameters", None))
    return not counting and not any(kind in rotary for kind in LENGTHWISE)


def distinct(batch: Batch) -> tuple[list[int], list[int]]:
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
