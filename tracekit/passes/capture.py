"""Transcripts through the model, once a batch; what is asked for comes back labelled."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.model import distributed
from tracekit.model.load import device_of, model_provenance
from tracekit.passes import batching, coordinates
from tracekit.passes.forward import Values, Work, batches
from tracekit.passes.labelling import scatter
from tracekit.passes.monitoring import Probes, ask_probes
from tracekit.passes.request import Asked, Reduce, Site, ask
from tracekit.storage import shard
from tracekit.storage.capture_folder import Folder
from tracekit.storage.identity import digest, tokenizer_hash
from tracekit.storage.provenance import read, refuse_disagreement, stamp
from tracekit.storage.store import open as open_store
from tracekit.storage.store import storable
from tracekit.storage.writers import Writers
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash, row_hashes
from tracekit.transcripts.selection import Tokens, kept_tokens


def capture(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    site: Site = "residual",
    dims: Sequence[str] | None = None,
    tokens: Tokens = "response",
    reduce: Reduce | None = None,
    vectors: xr.DataArray | None = None,
    probes: Probes | None = None,
    transfer: bool = False,
    path: str | Path | None = None,
    token_budget: int | None = None,
    compression: str = shard.DEFAULT_CODEC,
    round_to: str | None = None,
    nonfinite: str = "raise",
    writers: int | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """What happens inside the model on these ids: (prompt, token, layer, dim), float32.

    One trace a batch, stopped after the last layer asked for. `layers` counts from 0 (−1: the
    embedding output), all by default, or those of `vectors`. `site` is one of these (docs/sites.md
    says which architectures lack which), or a function of the block giving (row, token, …), whose
    further axes `dims` names: `dims=("head", "dim")`; without `dims` they are one, `dim`.

    | site | is | dims after `layer` |
    | --- | --- | --- |
    | `residual` | a block's output | `dim` |
    | `attention`, `mlp` | what each adds to the residual stream | `dim` |
    | `heads` | what each head adds; with the bias, their sum is `attention` | `head`, `dim` |
    | `queries`, `keys`, `values` | as projected, before norms and positions | `head`, `dim` |
    | `pattern` | attention's weights, NaN where masked; the token dim is `query` | `head`, `key` |
    | `mlp_hidden` | the input of the MLP's down projection | `unit` |
    | `router` | a mixture's logits before their softmax | `expert` |

    Where queries share keys, `keys` and `values` have that many heads. `pattern` runs with eager
    attention, which provenance records, and leaves the model as it was. `tokens`: "response" (and
    the last prompt token), "prompt", "all", a slice or list of token labels, or a boolean array
    (prompt, token): `tk.find` gives that of a text, a role or a turn.

    `reduce="mean"` (or a function of a row's (token, …) values, giving (…)) keeps one value a
    row: (prompt, layer, …), by default of the response's own tokens. Functions are recorded by
    source and bound values, or under a name of your own as pairs `("name", function)`. `vectors`
    (trait, layer, dim), or one vector with its `layer`, projects inside the trace: (prompt, token,
    layer, trait), with a `head` before the `trait` for `heads`; the dot product, with the norm of
    each value as the coordinate `norm`. `probes` (of `traits.fit`: one, a list, or a dict by name;
    a target is one) are scored inside the trace, each at its own layer of the residual stream:
    (prompt, token, probe), with the coordinates `layer`, `pooling` and `threshold` (probe), and
    `pooled` (prompt, probe), each probe's own pooling of the tokens that it pools (the response's,
    labels from 0, unless it was fitted on others), of those that are kept; of others
    `tk.pool(scores, …, tokens=…)`. Vectors and probes made with other weights need
    `transfer=True`, which is recorded.

    With `path` the values go to a folder of netCDF shards while the model runs, and the lazy
    array over them is returned (in the order of the batch plan); a capture that was killed goes
    on where it stopped. Without, the array is in memory, in the order of the transcripts. A batch
    holds at most `token_budget` tokens, padding included (by default what the memory holds).
    `writers` is the most writer processes to start (0, the default: this process's threads).
    `round_to="bfloat16"` and `nonfinite="mark"` (keep NaN and infinity) are recorded.

    Errors: `ValueError` or `TypeError` for layers, sites, tokens or vectors that do not fit, for a
    function that has no name (see above), for a row without a kept token, for a `path` that
    holds something else, and for a value that is not finite (prompt, token and layer named);
    `OSError` for a disk that is full (what is finished stays).

    >>> capture(model, runs, layers=range(12, 24)).dims
    ('prompt', 'token', 'layer', 'dim')
    >>> capture(model, runs, probes={"lies": probe}, tokens="all").pooled.dims
    ('prompt', 'probe')
    """
    shard.require_codec(compression)
    if probes is None:
        asked = ask(
            model, layers, site, tokens, reduce, vectors, round_to, nonfinite, transfer, dims
        )
    else:
        others: dict[str, Any] = {"layers": layers, "site": site, "dims": dims, "reduce": reduce}
        others |= {"vectors": vectors, "round_to": round_to}
        asked = ask_probes(model, probes, tokens, nonfinite, transfer, others)
    coordinates.require_free(transcripts, asked)
    mine = {"tokenizer": tokenizer_hash(model.tokenizer)}
    refuse_disagreement(mine, read(transcripts), ("tokenizer",))
    kept = kept_tokens(transcripts, asked.tokens)
    folder = None if path is None else Folder(Path(path), distributed.share(model)[0])
    budget = token_budget or (folder and folder.budget())
    budget = budget or _default_budget(model, asked, transcripts.sizes["token"])
    budget = distributed.agreed(model, budget)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        **asked.described(),
        "ids": ids_hash(transcripts),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    # strings of a file are objects: made text once, not once a batch
    work = Work(model, storable(transcripts), kept, asked, made_with, progress)
    if folder is None:
        return _in_memory(work, plan)
    return _to_folder(work, plan, folder, compression, writers)


def _default_budget(model: TransformersModel, asked: Asked, columns: int) -> int:
    plain = asked.vectors is None and asked.reduce is None and not callable(asked.site)
    size = model._module.dtype.itemsize if plain else 4
    numbers = asked.numbers * (columns if asked.is_pattern else 1)
    return batching.default_budget(model, size * numbers * len(asked.layers))


def _in_memory(work: Work, plan: Sequence[Sequence[int]]) -> xr.DataArray:
    asked, axis = work.asked, coordinates.axis(work)
    kept = work.kept[:, axis]
    outer = kept.shape[:1] if asked.reduce else kept.shape
    filled: dict[str, np.ndarray] = {}
    for batch in _everyones(work, plan):
        where = (np.asarray(batch.rows),) if asked.reduce else _places(kept, batch.rows)
        _fill(filled, "values", outer, where, batch.layers)
        if asked.keeps_checks:
            _fill(filled, "checks", outer, where, batch.checks)
    values, checks = filled["values"], filled.get("checks")
    if asked.round_to:
        values = shard.round_to_bfloat16(values)
    rows, last = coordinates.labels(work, range(len(kept))), values.shape[len(outer) + 1 :]
    named = coordinates.with_axes(rows, asked, last, checks, values)
    array = xr.DataArray(values, dims=asked.dims, coords=named.coords, name=asked.name)
    return stamp(array, work.made_with)


def _everyones(work: Work, plan: Sequence[Sequence[int]]) -> Iterable[Values]:
    rank, ranks = distributed.share(work.model)
    if ranks == 1:
        return batches(work, plan)
    mine = list(batches(work, plan[rank::ranks]))
    return itertools.chain.from_iterable(distributed.gathered(work.model, mine))


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


def _to_folder(
    work: Work,
    plan: Sequence[Sequence[int]],
    folder: Folder,
    compression: str,
    writers: int | None,
) -> xr.DataArray:
    # versions may change between a kill and its resume without the values changing
    settings = {k: v for k, v in work.made_with.items() if k != "versions"}
    names = [f"{n:05d}.nc" for n in range(len(plan))]
    queued = _writers(work.model, compression) if writers is None else (writers, False)
    (processes, beside), cores = queued, torch.get_num_threads()
    model, (rank, ranks) = work.model, distributed.share(work.model)
    first = rank == 0 and distributed.writes(model)
    with folder.locked() if first else contextlib.nullcontext():
        if first:
            hashes = row_hashes(work.transcripts)
            folder.begin({**settings, "compression": compression}, len(plan), hashes)
        done = distributed.agreed(model, list(folder.records()) if first else [])
        left = [n for n, name in enumerate(names) if name not in done][rank::ranks]
        with Writers(processes, folder.record, cores, beside) as queue:
            todo = [plan[n] for n in left]
            for n, batch in zip(left, batches(work, todo), strict=True):
                if distributed.writes(model):
                    queue.submit(_job(work, batch, folder.path / names[n], compression))
        distributed.wait(model)
    return open_store(folder.path)


def _writers(model: TransformersModel, compression: str) -> tuple[int, bool]:
    """How many processes, and whether this one's threads write beside the forward."""
    if device_of(model).type != "cuda":
        return 0, False
    # blosc compresses outside HDF5's lock, and without Python's
    beside = compression == "blosc_zstd"
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
