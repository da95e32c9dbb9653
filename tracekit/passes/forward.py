"""The forward passes of a capture: one trace a batch, and its values on their way to the CPU."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.edit import edited_depth
from tracekit.edits.positions import rows_of
from tracekit.edits.probe_form import scored
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.attention import eager
from tracekit.model.load import device_of
from tracekit.model.record import origin, remote_options
from tracekit.model.sites import first
from tracekit.model.sites import read as read_site
from tracekit.passes import batching, patterns
from tracekit.passes.beginnings import prompts_once
from tracekit.passes.beginnings.planning import Plan
from tracekit.passes.readings import readings
from tracekit.passes.reduction import keep
from tracekit.passes.request import Asked
from tracekit.progress import Bar
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch


@dataclass(frozen=True)
class Work:
    """A capture to run: `kept` says which (prompt, token) places of the transcripts are kept.

    With a `plan`, what rows begin with is read once: what is common to all, and the prompt that
    several rows of a batch have; nothing is kept before a prompt's last token then.
    """

    model: TransformersModel
    transcripts: xr.Dataset
    kept: np.ndarray
    asked: Asked
    made_with: dict[str, Any]
    progress: bool
    plan: Plan | None = None


@dataclass(frozen=True)
class Values:
    """A batch on the CPU: per layer (kept or row, …, dim or trait), and a number a kept token.

    The number is finite where the token is; where the values are projections it is the norm, one
    for each head where a site has heads. Of probes there is an entry each: scores (kept), and how
    much each token counts under attention.
    """

    rows: list[int]
    layers: list[torch.Tensor]
    checks: list[torch.Tensor]


Saved = list[tuple[torch.Tensor, torch.Tensor]]
# of each work, the values of a batch (or a piece of one), and what says that they have arrived
Parts = list[tuple[Values, list[Any]]]


def batches(
    works: Sequence[Work], plan: Sequence[Sequence[int]]
) -> Generator[list[Values], None, None]:
    """Each batch of the plan, forwarded once, as what each of the `works` on it asked for.

    The works are of the same model and transcripts. A batch's copy to the CPU overlaps the next
    one's forward.

    Errors: `ValueError` for a value that is not finite, unless `nonfinite="mark"`.
    """
    one = works[0]
    sizes = tensors.lengths(one.transcripts)
    total = int(sizes[[row for rows in plan for row in rows]].sum())
    bar = Bar(total=total, unit="token", desc="capture", disable=not one.progress, leave=False)
    device = device_of(one.model) if origin(one.model).weights != "remote" else None
    directions = [work.asked.directions(device) for work in works]
    shared = None
    if plan and one.plan is not None:
        read = deepest(one.model, [work.asked for work in works])
        begun = functools.partial(prompts_once.begun, one.model, one.transcripts)
        common = one.plan.common
        ((_, shared),) = batching.run([0], lambda _: begun(common, read))
    waiting: list[Parts] = []
    with bar, torch.no_grad():
        for rows in plan:
            parts: list[Parts] = [
                [_copied(list(part), saved) for saved in each]
                for part, each in batching.run(
                    rows, lambda p: _trace(works, list(p), directions, shared)
                )
            ]
            if waiting:
                yield _arrived(works, waiting)
            waiting = parts
            bar.update(int(sizes[list(rows)].sum()))
        if waiting:
            yield _arrived(works, waiting)


def shards(
    works: Sequence[Work], plan: Sequence[Sequence[list[int]]]
) -> Generator[list[Values], None, None]:
    """`batches`, with those of each shard of the plan as one."""
    with contextlib.closing(batches(works, [rows for shard in plan for rows in shard])) as made:
        for shard in plan:
            parts = itertools.islice(made, len(shard))
            yield [_joined(values) for values in zip(*parts, strict=True)]


def deepest(model: TransformersModel, asked: Sequence[Asked]) -> int:
    """The last block whose output is read; -1 for the embedding's alone."""
    if any(one.is_logprob for one in asked):
        return len(model.layers) - 1
    return max((layer for one in asked for layer in one.layers), default=-1)


def _trace(
    works: Sequence[Work],
    rows: list[int],
    directions: Sequence[Mapping[int, Any]],
    common: prompts_once.Read | None,
) -> list[Saved]:
    model, asked = works[0].model, [work.asked for work in works]
    chosen, kept = works[0].transcripts.isel(prompt=rows), [work.kept[rows] for work in works]
    made = batching.batch(model, chosen)
    inputs: dict[str, Any] = {**made.model_inputs}
    # nothing is generated, so no keys and values need keeping
    options = {"use_cache": False, **remote_options(model)}
    likely, last = any(one.is_logprob for one in asked), deepest(model, asked)
    shared = None if common is None else prompts_once.behind(model, made, last, common)
    if shared is not None:
        made, inputs, options = shared
    places = [flat_index(model, chosen, here, made) for here in kept]
    # plain values and functions that need torch alone: inside, a remote server must know them
    reads, owners = readings(asked, places, directions)
    edited, ids = edited_depth(model), made.input_ids
    attention = eager(model, any(one.is_pattern for one in asked))
    with rows_of(model, made), attention, model.trace(inputs, **options) as tracer:
        saved = nnsight.save([])
        for layer, site, index, uses in reads:
            value = read_site(model, layer, site, index)
            for part, axes, sizes, reduce, direction, probes in uses:
                mine = value if part is None else value.index_select(0, part.to(value.device))
                if probes:
                    saved.extend([scored(mine, one) for one in probes])
                else:
                    saved.append(keep(mine, axes, sizes, reduce, direction))
        if likely:
            # the whole forward: nothing is left to be stopped
            saved.append(head.of_next(head.read(model), ids))
        else:
            if edited >= max(last, 0):
                # an edit of the last block (or deeper) has to run before the forward is stopped
                first(model.layers[edited].output)
            tracer.stop()
    return [
        _likely(saved[-1], made, places[n][0])
        if one.is_logprob
        else _finished(work, [saved[k] for k, owner in enumerate(owners) if owner == n], rows, made)
        for n, (work, one) in enumerate(zip(works, asked, strict=True))
    ]


def _finished(work: Work, saved: Saved, rows: list[int], made: Batch) -> Saved:
    """What one of the works asked for, of what a trace saved for it."""
    asked = work.asked
    if asked.probes:
        return [saved[n] for n in asked.places_saved]
    if asked.parts:
        shape = (len(rows), len(asked.parts))
        return [(values.unflatten(0, shape), sums) for values, sums in saved]
    if asked.is_pattern:
        keys = patterns.key_columns(work.kept)
        chosen = work.transcripts.isel(prompt=rows)
        return patterns.by_key(saved, chosen, work.kept[rows], made, keys)
    return saved


def _likely(following: torch.Tensor, made: Batch, index: torch.Tensor) -> Saved:
    """Log-probabilities of the kept tokens; none of each row's first, which nothing foretells."""
    scores = torch.nn.functional.pad(following.float(), (1, 0), value=torch.nan)
    begun = made.attention_mask.argmax(1).to(scores.device)
    rows = torch.arange(len(scores), device=scores.device)
    finite = scores.clone()
    scores[rows, begun], finite[rows, begun] = torch.nan, 0.0
    here = index.to(scores.device)
    return [(scores.flatten()[here], finite.flatten()[here])]


def flat_index(
    model: TransformersModel, transcripts: xr.Dataset, kept: np.ndarray, made: Batch
) -> tuple[torch.Tensor, list[int]]:
    """Where the kept tokens of a batch lie among its rows × columns, and how many each row has.

    `transcripts` and `kept` (prompt, token) are those of the batch's rows, which has the last of
    their tokens, or all; of several parts of a row, `kept` is (prompt, stretch, token), and there
    is a number for each part.
    """
    # real tokens keep their order in the batch
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    apart = real.sum(1) - made.attention_mask.sum(1).numpy()
    real &= real.cumsum(1) > apart[:, None]
    places = np.full(real.shape, -1)
    places[real] = made.attention_mask.bool().flatten().nonzero().squeeze(1).numpy()
    if kept.ndim > real.ndim:
        places = np.broadcast_to(places[:, None], kept.shape)
    index = torch.as_tensor(places[kept])
    device = device_of(model)
    if device.type == "cuda":
        # from pageable memory every layer's copy would wait for the layers before it
        index = index.pin_memory().to(device, non_blocking=True)
    return index, kept.sum(-1).flatten().tolist()


def _copied(rows: list[int], saved: Sequence[Sequence[torch.Tensor]]) -> tuple[Values, list[Any]]:
    """The saved values on their way to the CPU, and the events that say they are there."""
    devices = {entry[0].device for entry in saved if entry[0].is_cuda}
    for device in devices:
        _copy_stream(device).wait_stream(torch.cuda.current_stream(device))
    layers = [_to_cpu(entry[0]) for entry in saved]
    checks = [_to_cpu(entry[1]) for entry in saved]
    return Values(rows, layers, checks), [_copy_stream(d).record_event() for d in devices]


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_cuda:
        return tensor
    stream = _copy_stream(tensor.device)
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
    # its memory may be used again only when this stream has read it
    tensor.record_stream(stream)
    return host


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _arrived(works: Sequence[Work], parts: Sequence[Parts]) -> list[Values]:
    for part in parts:
        for work, (values, events) in zip(works, part, strict=True):
            for event in events:
                event.synchronize()
            if work.asked.nonfinite == "raise":
                refuse_nonfinite(work, values.rows, values.checks)
    return [_joined([values for values, _ in mine]) for mine in zip(*parts, strict=True)]


def _joined(found: Sequence[Values]) -> Values:
    """A batch that ran in pieces, or the batches of a shard, whole."""
    if len(found) == 1:
        return found[0]
    return Values(
        [row for values in found for row in values.rows],
        [torch.cat(pieces) for pieces in zip(*(v.layers for v in found), strict=True)],
        [torch.cat(pieces) for pieces in zip(*(v.checks for v in found), strict=True)],
    )


def refuse_nonfinite(work: Work, rows: Sequence[int], found: Sequence[torch.Tensor]) -> None:
    """Errors: `ValueError` naming prompt, token and layer of the first check that is not finite."""
    for layer, checks in zip(work.asked.places, found, strict=True):
        if bool(torch.isfinite(checks).all()):
            continue
        wrong = ~torch.isfinite(checks.reshape(len(checks), -1)).all(1)
        row, *_, column = np.argwhere(work.kept[list(rows)])[int(wrong.nonzero()[0])]
        raise InputError(
            "A value that is not finite was captured: prompt "
            f"{ids_of(work.transcripts)[rows[row]]!r}, token "
            f"{work.transcripts.token.values[column]}, layer {layer} "
            f"(dtype {origin(work.model).dtype}; float16 overflows on outlier dimensions). "
            "Load with dtype='bfloat16', or capture with nonfinite='mark' to keep such values."
        )
