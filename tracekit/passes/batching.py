"""Length-sorted batches under a token budget."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr

from tracekit.errors import InputError
from tracekit.model.load import device_of
from tracekit.model.record import origin
from tracekit.passes.request import Asked
from tracekit.transcripts import tensors
from tracekit.transcripts.padded import Batch

Result = TypeVar("Result")
CPU_BUDGET = 2048
DECODING_LEAST, DECODING_BUDGET, DECODING_BYTES = 4096, 8192, 1 << 30
SHARD_BYTES, GPU_SHARD_BYTES = 1 << 28, 1 << 29
# files of a capture: beyond a few each is opened for 64 MB, or for as many batches as may be lost
FEW, ENOUGH, LOST = 32, 1 << 26, 16
# a file takes 45 ms of labels: up to four batches share one where there are four files, and where
# so many are soon computed again (some 20 seconds)
FOUR, SOON, GPU_SOON = 4, 4e12, 4e15
MANY = 512
LEAST = 256
ALIKE, WORTHWHILE = 0.9, 1 / 16
DECODING_ALIKE = 0.5  # a step costs nearly the same for few rows as for many


def plan(
    lengths: Sequence[int], budget: int, padded: bool = True, alike: float = ALIKE
) -> list[list[int]]:
    """Rows in batches of similar length; a batch's rows × its longest row stay within `budget`.

    Deterministic: longest first, ties in the order given. A row longer than the budget gets a
    batch of its own. A batch that has a sixteenth of the budget takes no row shorter than the
    share `alike` of its longest: a large budget would otherwise pad a ragged set to one width.
    With `padded=False` a batch's rows are all of one length.

    >>> plan([5, 10, 5, 9], budget=20)
    [[1, 3], [0, 2]]
    """
    if budget < 1 or budget != int(budget):
        raise InputError(f"token_budget={budget} was asked for; give a whole number of tokens.")
    batches: list[list[int]] = []
    for row in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        longest, rows = (lengths[batches[-1][0]], len(batches[-1])) if batches else (0, 0)
        fits = rows > 0 and _joins(lengths[row], longest, rows, budget, alike)
        if fits and (padded or lengths[row] == longest):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def files(batches: int, size: int, soon: int = 1) -> int:
    """How many shards so many batches fill, at `size` kept bytes each.

    Beyond `FEW` files each holds 64 MB or 16 batches, more where they would be over `MANY`. Up to
    four that are computed `soon`, and 128 MB, go into one as long as there are four files. No
    shard grows beyond the limit of one.

    >>> files(3, 1000)
    3
    >>> files(250, 20_000_000)
    84
    >>> files(8, 20_000_000, soon=7)
    4
    """
    size = max(size, 1)
    several = max(-(-batches // MANY), min(-(-batches // FEW), ENOUGH // size, LOST))
    several = max(several, min(batches // FOUR, soon, FOUR, 2 * ENOUGH // size))
    return -(-batches // max(min(several, SHARD_BYTES // size), 1))


def soon(model: Any, budget: int) -> int:
    """How many batches of so many tokens a model computes in some 20 seconds."""
    numbers = sum(weight.numel() for weight in model._module.parameters())
    work = GPU_SOON if device_of(model).type == "cuda" else SOON
    return int(work // (2 * budget * max(numbers, 1)))


def grouped(plan: Sequence[list[int]], shards: int) -> list[list[list[int]]]:
    """The batches of each of so many shards; a capture that is resumed has its number from before.

    >>> grouped([[0], [1], [2]], 2)
    [[[0], [1]], [[2]]]
    """
    several = -(-len(plan) // max(shards, 1)) or 1
    return [list(plan[at : at + several]) for at in range(0, len(plan), several)]


def _joins(length: int, longest: int, rows: int, budget: int, alike: float) -> bool:
    near = length >= alike * longest or rows * longest < budget * WORTHWHILE
    return near and (rows + 1) * longest <= budget


def efficiency(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of computed tokens that are not padding."""
    computed = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return sum(lengths) / computed


def default_budget(model: Any, kept_bytes: int = 0, parts: int = 1) -> int:
    """Tokens a batch: 2,048 on CPU (4,096 are slower); on a GPU, what the free memory holds.

    A quarter of that memory is for a generous bound on one block's activations, and for what is
    kept of two batches (`kept_bytes` a token); `parts` times as much where gradients or logits are
    kept. What is kept of one batch is one shard, and stays under 256 MB (512 MB beside a GPU, where
    few rows at a time wait for the weights), since a few shards at a time lie in memory to be
    written. A model that does not handle padding gets its rows one by one.
    """
    if "padding" in origin(model).refused:
        return 1
    device, config = device_of(model), model._module.config.get_text_config()
    gpu = device.type == "cuda"
    free = float(torch.cuda.mem_get_info(device)[0]) if gpu else 0.0
    wide = most(config, "intermediate_size")
    whole = budget_for(free, config.hidden_size, wide, kept_bytes, gpu)
    return whole if parts == 1 else max(whole // parts, LEAST)


def fitting_budget(model: Any, asked: Sequence[Asked], columns: int, shortest: int) -> int:
    """Tokens a batch that all requests together fit in, of transcripts so many tokens wide.

    `shortest` is the least that is computed of a row.
    """
    likely = any(one.is_logprob for one in asked)
    kept = kept_bytes(model, asked, columns, shortest)
    return default_budget(model, kept, parts=2 if likely else 1)


def kept_bytes(model: Any, asked: Sequence[Asked], columns: int, shortest: int) -> int:
    """What all requests together keep of a token, at most."""
    size = 0.0
    for one in asked:
        plain = one.vectors is None and one.reduce is None and not callable(one.site)
        numbers = float(one.numbers * (columns if one.is_pattern else 1))
        if one.reduce is not None:
            # a value a row or a part of it, of which there is one a token at most
            numbers *= min(max(len(one.parts), 1) / max(shortest, 1), 1)
        size += (model._module.dtype.itemsize if plain else 4) * numbers * max(len(one.layers), 1)
    return math.ceil(size)


def decoding_budget(model: Any) -> int:
    """Tokens a batch of generation: on a GPU as above, on CPU what 1 GB of keys and values holds.

    A step of decoding reads all weights, however many rows it serves; more than 8,192 tokens are
    not faster on a few cores.
    """
    if device_of(model).type == "cuda" or "padding" in origin(model).refused:
        return default_budget(model)
    kept = cached_numbers(model._module.config.get_text_config())
    token = kept * model._module.dtype.itemsize
    return int(min(max(DECODING_BYTES // max(token, 1), DECODING_LEAST), DECODING_BUDGET))


def cached_numbers(config: Any) -> int:
    """How many numbers a token's keys and values are, in all layers; 0 for a state of fixed size.

    Where layers differ, each counts as the widest.
    """
    queries = most(config, "num_attention_heads")
    heads = most(config, "num_key_value_heads") or queries
    width = most(config, "head_dim") or (config.hidden_size // queries if queries else 0)
    if most(config, "kv_lora_rank"):
        # latent attention is kept unpacked: the keys and values of every head
        key = most(config, "qk_nope_head_dim") + most(config, "qk_rope_head_dim")
        heads, width = queries, max(key, most(config, "v_head_dim"))
    return 2 * most(config, "num_hidden_layers") * heads * width


def most(config: Any, name: str) -> int:
    """The largest value of a setting that is one number, one a layer, or absent (0).

    >>> from transformers import PretrainedConfig
    >>> most(PretrainedConfig(intermediate_size=[48, 64]), "intermediate_size")
    64
    """
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config]
    values: list[Any] = [getattr(layer, name, None) for layer in layers]
    numbers = [n for value in values for n in np.atleast_1d(value) if n is not None]
    return max((int(n) for n in numbers), default=0)


def budget_for(free: float, hidden: int, intermediate: int, kept_bytes: int, gpu: bool) -> int:
    """The default budget of a model of these widths with `free` bytes of a GPU's memory.

    >>> budget_for(30e9, 8192, 28672, 0, gpu=True)
    9472
    """
    most = max((GPU_SHARD_BYTES if gpu else SHARD_BYTES) // max(kept_bytes, 1), 1)
    if not gpu:
        return min(CPU_BUDGET, most)
    wide = max(intermediate, 4 * hidden)
    need = 4 * (4 * wide + 8 * hidden) + 2 * kept_bytes
    fitting = int(min(max(free // 4 // need, 1024), 32768)) // 256 * 256
    return min(fitting, most)


def batch(model: Any, transcripts: xr.Dataset, rows: Sequence[int] | None = None) -> Batch:
    """Rows of transcripts as one left-padded batch of the model's own padding.

    >>> batch(model, runs, [0, 2]).input_ids.shape
    torch.Size([2, 46])
    """
    return tensors.batch(transcripts, rows, pad=model.tokenizer.pad_token_id or 0)


def over(
    plan: Sequence[Sequence[int]], compute: Callable[[list[int]], Result]
) -> Iterator[tuple[list[int], Result]]:
    """`compute(rows)` for each batch of a plan, with the rows that it is of.

    >>> [sum(values) for _, values in over([[1, 3], [0, 2]], lambda rows: rows)]
    [4, 2]
    """
    for rows in plan:
        for part, result in run(rows, lambda p: compute(list(p))):
            yield list(part), result


def run(
    rows: Sequence[int], compute: Callable[[Sequence[int]], Result]
) -> Iterator[tuple[Sequence[int], Result]]:
    """`compute(rows)`, in halves if CUDA runs out of memory; raises when one row is too much."""
    failed = False
    try:
        result = compute(rows)
    except torch.cuda.OutOfMemoryError as error:
        if len(rows) == 1:
            raise MemoryError(
                f"One row alone does not fit on the GPU: {str(error).splitlines()[0]} "
                "Use fewer layers, reduce=, vectors=, or a smaller dtype."
            ) from error
        failed = True
    if not failed:
        yield rows, result
        return
    # out of the except block: its traceback held the failed tensors, and cycles may still
    gc.collect()
    torch.cuda.empty_cache()
    half = (len(rows) + 1) // 2
    yield from run(rows[:half], compute)
    yield from run(rows[half:], compute)
