"""What several requests keep of one forward of each batch: in memory, or in a folder each."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model import distributed
from tracekit.model.load import device_of, model_provenance
from tracekit.passes import batching, coordinates
from tracekit.passes.beginnings import planning, prompts_once
from tracekit.passes.forward import Values, Work, deepest, shards
from tracekit.passes.labelling import scatter
from tracekit.passes.request import Asked
from tracekit.storage import shard
from tracekit.storage.capture_folder import SHARD, Folder
from tracekit.storage.identity import tokenizer_hash
from tracekit.storage.provenance import read, refuse_disagreement, stamp
from tracekit.storage.store import open as open_store
from tracekit.storage.store import storable
from tracekit.storage.writers import Writers
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash
from tracekit.transcripts.selection import kept_parts, kept_tokens


def of(
    model: TransformersModel,
    transcripts: Any,
    asked: Sequence[Asked],
    paths: Sequence[Path | None],
    token_budget: int | None,
    compression: str,
    writers: int | None,
    progress: bool,
    share_prompts: bool = False,
) -> list[xr.DataArray]:
    """What each request asks of the transcripts: in the folder at its path, or in memory (None).

    Errors: those of `capture`.
    """
    for one in asked:
        coordinates.require_free(transcripts, one)
    mine = {"tokenizer": tokenizer_hash(model.tokenizer)}
    refuse_disagreement(mine, read(transcripts), ("tokenizer",))
    kept = [_kept(transcripts, one, path) for one, path in zip(asked, paths, strict=True)]
    if share_prompts:
        coordinates.require_responses(transcripts, asked, kept)
    rank, ranks = distributed.share(model)
    folders = coordinates.folders(model, paths, rank)
    # a capture that goes on is read as it was begun
    former = next((f.batches() for f in folders if f is not None and f.batches()), {})
    budget = token_budget or former.get("budget")
    sizes, columns = tensors.lengths(transcripts), transcripts.sizes["token"]
    shortest = planning.shortest(transcripts, share_prompts)
    budget = budget or batching.fitting_budget(model, asked, columns, shortest)
    budget = distributed.agreed(model, budget)
    once = share_prompts and (not former or planning.shared(former))
    # behind the embedding alone there are no keys and values
    once = once and deepest(model, asked) >= 0 and prompts_once.may_share(model)
    once = distributed.agreed(model, once)
    shared = planning.plan(transcripts, budget) if once else None
    plan = batching.plan(sizes.tolist(), budget) if shared is None else shared.batches
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "ids": ids_hash(transcripts),
        "batches": planning.described(budget, plan, shared),
    }
    # strings of a file are objects: made text once, not once a batch
    whole = storable(transcripts)
    works = [
        Work(model, whole, where, one, {**made_with, **one.described()}, progress, shared)
        for one, where in zip(asked, kept, strict=True)
    ]
    count = len(plan)
    if any(folders):
        begun = next((n for n in (f.shards() for f in folders if f is not None) if n), None)
        size = budget * batching.kept_bytes(model, asked, columns, shortest)
        # ranks take files in turn: with a few, some would have one more than others
        soon = batching.soon(model, budget) if ranks == 1 else 0
        count = begun or batching.files(count, size, soon)
    return _run(works, batching.grouped(plan, count), folders, compression, writers)


def _kept(transcripts: xr.Dataset, asked: Asked, path: Path | None) -> np.ndarray:
    if not asked.parts or not isinstance(asked.tokens, xr.DataArray):
        return kept_tokens(transcripts, asked.tokens)
    kept = kept_parts(transcripts, asked.tokens)
    if path is not None and not kept.any((1, 2)).all():
        raise InputError(
            f"The mask of tokens= has no token in {int((~kept.any((1, 2))).sum())} of "
            f"{len(kept)} rows, and {str(path)!r} would keep all. Leave those rows out of the "
            "transcripts, or capture into memory, which leaves them out."
        )
    return kept


def _run(
    works: Sequence[Work],
    plan: Sequence[Sequence[list[int]]],
    folders: Sequence[Folder | None],
    compression: str,
    writers: int | None,
) -> list[xr.DataArray]:
    """What each work asked for, of one forward of each batch that one of them lacks.

    A file for each of the plan's shards in its folder, or (None) in memory: then all are lacking.
    """
    model = works[0].model
    rank, ranks = distributed.share(model)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as writing:
            kept: list[_Memory | _Shards] = [
                _Memory(work)
                if folder is None
                else _shards(work, folder, len(plan), compression, writers, (held, writing))
                for work, folder in zip(works, folders, strict=True)
            ]
            left = [n for n in range(len(plan)) if any(one.lacks(n) for one in kept)][rank::ranks]
            with contextlib.closing(shards(works, [plan[n] for n in left])) as made:
                for n in left:
                    for one, batch in zip(kept, next(made), strict=True):
                        if one.lacks(n):
                            one.take(n, batch)
                    del batch  # nothing of a shard is held while the next one is read
        distributed.wait(model)
    return [one.result() for one in kept]


@dataclass
class _Memory:
    """One request's values in memory; those of other ranks come at the end."""

    work: Work
    filled: dict[str, np.ndarray] = field(default_factory=dict)
    own: list[Values] = field(default_factory=list)

    def lacks(self, number: int) -> bool:
        return True

    def take(self, number: int, batch: Values) -> None:
        if distributed.share(self.work.model)[1] > 1:
            self.own.append(batch)
        else:
            self._fill(batch)

    def result(self) -> xr.DataArray:
        if distributed.share(self.work.model)[1] > 1:
            every = distributed.gathered(self.work.model, self.own)
            for batch in itertools.chain.from_iterable(every):
                self._fill(batch)
        return _labelled(self.work, self.filled)

    @functools.cached_property
    def _kept(self) -> np.ndarray:
        """The places of the array: the rows that have anything, or (row, token)."""
        if self.work.asked.reduce is not None:
            return _there(self.work)
        return self.work.kept[:, coordinates.axis(self.work)]

    def _fill(self, batch: Values) -> None:
        """A batch's values into their places."""
        layers, kept = batch.layers, self._kept
        if self.work.asked.reduce is not None:
            mine = kept[batch.rows]
            outer: tuple[int, ...] = (int(kept.sum()),)
            where: tuple[np.ndarray, ...] = ((np.cumsum(kept) - 1)[batch.rows][mine],)
            layers = [layer[torch.as_tensor(mine)] for layer in layers]
        else:
            outer, where = kept.shape, _places(kept, batch.rows)
        _fill(self.filled, "values", outer, where, layers)
        if self.work.asked.keeps_checks:
            _fill(self.filled, "checks", outer, where, batch.checks)


@dataclass
class _Shards:
    """One request's values on their way to a folder that has `done` of its shards."""

    work: Work
    folder: Folder
    done: Collection[str]
    queue: Writers
    compression: str

    def lacks(self, number: int) -> bool:
        return SHARD.format(number) not in self.done

    def take(self, number: int, batch: Values) -> None:
        if distributed.writes(self.work.model):
            path = self.folder.path / SHARD.format(number)
            self.queue.submit(_job(self.work, batch, path, self.compression))

    def result(self) -> xr.DataArray:
        return open_store(self.folder.path)


def _shards(
    work: Work,
    folder: Folder,
    count: int,
    compression: str,
    writers: int | None,
    stacks: tuple[contextlib.ExitStack, contextlib.ExitStack],
) -> _Shards:
    """The folder taken for this work, locked until the first stack ends; the second writes."""
    held, writing = stacks
    model = work.model
    first = distributed.share(model)[0] == 0 and distributed.writes(model)
    if first:
        held.enter_context(folder.locked())
        # versions may change between a kill and its resume without the values changing
        settings = {k: v for k, v in work.made_with.items() if k != "versions"}
        hashes = coordinates.row_hashes(folder, work.transcripts)
        folder.begin({**settings, "compression": compression}, count, hashes)
    done = distributed.agreed(model, list(folder.records()) if first else [])
    processes, beside = _writers(model, compression) if writers is None else (writers, False)
    queue = Writers(processes, folder.record, torch.get_num_threads(), beside)
    return _Shards(work, folder, done, writing.enter_context(queue), compression)


def _there(work: Work) -> np.ndarray:
    """The rows that have anything: of several stretches, one may have none."""
    return np.asarray(work.kept.any(tuple(range(1, work.kept.ndim))))


def _labelled(work: Work, filled: Mapping[str, np.ndarray]) -> xr.DataArray:
    asked, values, checks = work.asked, filled["values"], filled.get("checks")
    if asked.is_logprob:
        values = values[..., 0]
    if asked.round_to:
        values = shard.round_to_bfloat16(values)
    outer = 2 if asked.is_logprob else 2 + (asked.reduce is None)
    rows = coordinates.labels(work, np.flatnonzero(_there(work)).tolist())
    named = coordinates.with_axes(rows, asked, values.shape[outer:], checks, values)
    array = xr.DataArray(values, dims=asked.dims, coords=named.coords, name=asked.name)
    return stamp(array, work.made_with)


def _fill(
    filled: dict[str, np.ndarray],
    name: str,
    outer: tuple[int, ...],
    where: tuple[np.ndarray, ...],
    layers: Sequence[torch.Tensor],
) -> None:
    values = torch.stack(list(layers), 1).float().numpy()
    if name not in filled:
        filled[name] = np.full((*outer, *values.shape[1:]), np.nan, np.float32)
    filled[name][where] = values


def _places(kept: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    inner, columns = np.nonzero(kept[np.asarray(rows)])
    return np.asarray(rows)[inner], columns


def _writers(model: TransformersModel, compression: str) -> tuple[int, bool]:
    """How many processes, and whether this one's threads write beside the forward."""
    if device_of(model).type != "cuda":
        return 0, False
    beside = compression.startswith("blosc")  # which needs neither HDF5's lock nor Python's
    return 0 if beside else max((os.cpu_count() or 2) // 2, 1), beside


def _job(work: Work, batch: Values, path: Path, compression: str) -> shard.Job:
    named, asked = coordinates.labels(work, batch.rows), work.asked
    checks, scores = None, None
    if asked.keeps_checks:
        where = named["token_id"].values >= 0
        checks = scatter(torch.stack(batch.checks, 1).numpy(), where)
        scores = scatter(torch.stack(batch.layers, 1).numpy(), where) if asked.probes else None
    return shard.Job(
        path=path,
        frame=coordinates.with_axes(named, asked, batch.layers[0].shape[1:], checks, scores),
        name=asked.name,
        dims=asked.dims,
        raw=tuple(_bits(layer) for layer in batch.layers),
        dtype=str(batch.layers[0].dtype).removeprefix("torch."),
        compression=compression,
        round_to=asked.round_to,
    )


def _bits(values: torch.Tensor) -> np.ndarray:
    # numpy has no bfloat16
    return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()
