"""The forward passes of a capture: one trace a batch, and its values on their way to the CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
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
from tracekit.model.eager import eager
from tracekit.model.load import device_of
from tracekit.model.record import origin, remote_options
from tracekit.model.sites import first
from tracekit.model.sites import read as read_site
from tracekit.passes import batching, patterns
from tracekit.passes.reduction import keep
from tracekit.passes.request import Asked
from tracekit.progress import Bar
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch


@dataclass(frozen=True)
class Work:
    """A capture to run: `kept` says which (prompt, token) places of the transcripts are kept."""

    model: TransformersModel
    transcripts: xr.Dataset
    kept: np.ndarray
    asked: Asked
    made_with: dict[str, Any]
    progress: bool


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


def batches(work: Work, plan: Sequence[Sequence[int]]) -> Iterator[Values]:
    """Each batch of the plan; its copy to the CPU overlaps the next batch's forward.

    Errors: `ValueError` for a value that is not finite, unless `nonfinite="mark"`.
    """
    sizes = tensors.lengths(work.transcripts)
    total = int(sizes[[row for rows in plan for row in rows]].sum())
    bar = Bar(total=total, unit="token", desc="capture", disable=not work.progress, leave=False)
    local = origin(work.model).weights != "remote"
    directions = work.asked.directions(device_of(work.model) if local else None)
    waiting: list[tuple[Values, list[Any]]] = []
    with bar, torch.no_grad():
        for rows in plan:
            parts = [
                _copied(list(part), saved)
                for part, saved in batching.run(rows, lambda p: _trace(work, list(p), directions))
            ]
            if waiting:
                yield _arrived(work, waiting)
            waiting = parts
            bar.update(int(sizes[list(rows)].sum()))
        if waiting:
            yield _arrived(work, waiting)


def _trace(
    work: Work, rows: list[int], directions: Mapping[int, Any]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    model, asked = work.model, work.asked
    chosen = work.transcripts.isel(prompt=rows)
    made = batching.batch(model, chosen)
    index, sizes = flat_index(model, chosen, work.kept[rows], made)
    # nothing is generated, so no keys and values need keeping
    options = {"use_cache": False, **remote_options(model)}
    # plain values and functions that need torch alone: inside, a remote server must know them
    layers, site, reduce, deepest = asked.layers, asked.site, asked.reduce, edited_depth(model)
    axes, attention, probes = len(asked.axes), eager(model, asked.is_pattern), bool(asked.probes)
    with rows_of(model, made), attention, model.trace(made.model_inputs, **options) as tracer:
        saved = nnsight.save([])
        for layer in layers:
            value = read_site(model, layer, site, index)
            if probes:
                saved.extend([scored(value, parts) for parts in directions[layer]])
            else:
                saved.append(keep(value, axes, sizes, reduce, directions.get(layer)))
        if deepest >= layers[-1]:
            # an edit of the last block (or deeper) has to run before the forward is stopped
            first(model.layers[deepest].output)
        tracer.stop()
    if probes:
        return [saved[n] for n in asked.places_saved]
    if asked.is_pattern:
        keys = patterns.key_columns(work.kept)
        return patterns.by_key(saved, chosen, work.kept[rows], made, keys)
    return saved


def flat_index(
    model: TransformersModel, transcripts: xr.Dataset, kept: np.ndarray, made: Batch
) -> tuple[torch.Tensor, list[int]]:
    """Where the kept tokens of a batch lie among its rows × columns, and how many each row has.

    `transcripts` and `kept` (prompt, token) are those of the batch's rows.
    """
    # kept[row, column] is in the transcripts' columns; real tokens keep their order in the batch
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    chosen = torch.zeros(made.attention_mask.shape, dtype=torch.bool)
    chosen[made.attention_mask.bool()] = torch.as_tensor(kept[real])
    index = chosen.flatten().nonzero().squeeze(1)
    device = device_of(model)
    if device.type == "cuda":
        # from pageable memory every layer's copy would wait for the layers before it
        index = index.pin_memory().to(device, non_blocking=True)
    return index, chosen.sum(1).tolist()


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


def _arrived(work: Work, parts: Sequence[tuple[Values, list[Any]]]) -> Values:
    for values, events in parts:
        for event in events:
            event.synchronize()
        if work.asked.nonfinite == "raise":
            refuse_nonfinite(work, values.rows, values.checks)
    found = [values for values, _ in parts]
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
        wrong = ~torch.isfinite(checks.reshape(len(checks), -1)).all(1)
        if not bool(wrong.any()):
            continue
        row, column = np.argwhere(work.kept[list(rows)])[int(wrong.nonzero()[0])]
        raise InputError(
            "A value that is not finite was captured: prompt "
            f"{ids_of(work.transcripts)[rows[row]]!r}, token "
            f"{work.transcripts.token.values[column]}, layer {layer} "
            f"(dtype {origin(work.model).dtype}; float16 overflows on outlier dimensions). "
            "Load with dtype='bfloat16', or capture with nonfinite='mark' to keep such values."
        )
