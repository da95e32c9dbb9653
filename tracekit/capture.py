"""Transcripts through the model, once a batch; what is asked for comes back labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel
from tqdm import tqdm

from tracekit import batching, shard, sites, tensors
from tracekit.intervene import edited_depth, rows_of
from tracekit.keep import Reducer, keep
from tracekit.keep import mean as keep_mean
from tracekit.model import device_of, model_provenance, origin
from tracekit.origin import remote_options
from tracekit.provenance import digest, read, refuse_disagreement, stamp
from tracekit.sites import first
from tracekit.sites import read as read_site
from tracekit.store import Folder
from tracekit.store import open as open_store
from tracekit.transcript import ids_hash, ids_of
from tracekit.writers import Writers

Reduce = str | Reducer


def capture(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: Sequence[int] | None = None,
    *,
    site: sites.Site = "residual",
    tokens: str | slice = "response",
    reduce: Reduce | None = None,
    vectors: xr.DataArray | None = None,
    path: str | Path | None = None,
    token_budget: int | None = None,
    compression: str = "blosc_zstd",
    round_to: str | None = None,
    nonfinite: str = "raise",
    writers: int | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """What happens inside the model on these ids: (prompt, token, layer, dim), float32.

    One trace a batch, stopped after the last layer asked for. `layers` counts from 0 (−1: the
    embedding output), all by default, or those of `vectors`. `tokens`: "response" (and the last
    prompt token), "all", or a slice of token labels. `reduce="mean"` (or a function of a row's
    (token, dim) values, giving (dim,)) keeps one value a row: (prompt, layer, dim). `vectors`
    (trait, layer, dim) projects inside the trace: (prompt, token, layer, trait), the dot product,
    with the norm of each value as the coordinate `norm`.

    With `path` the values go to a folder of netCDF shards while the model runs, and the lazy
    array over them is returned (in the order of the batch plan); a capture that was killed goes
    on where it stopped. Without, the array is in memory, in the order of the transcripts.
    `round_to="bfloat16"` and `nonfinite="mark"` (keep NaN and infinity) are recorded.

    Errors: `ValueError` for layers, sites, tokens or vectors that do not fit, for a `path` that
    holds something else, and for a value that is not finite (prompt, token and layer named).

    >>> capture(model, runs, layers=range(12, 24)).dims
    ('prompt', 'token', 'layer', 'dim')
    """
    what = _What.of(model, layers, site, tokens, reduce, vectors, round_to, nonfinite)
    _refuse_other_tokenizer(model, transcripts)
    kept = _kept_tokens(transcripts, tokens)
    budget = token_budget or batching.default_budget(model)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        **what.described(),
        "ids": ids_hash(transcripts),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    work = _Work(model, transcripts, kept, what, made_with, progress)
    if path is None:
        return _in_memory(work, plan)
    return _to_folder(work, plan, Path(path), compression, writers)


@dataclass(frozen=True)
class _What:
    """What to read, and what to keep of it."""

    layers: list[int]
    site: sites.Site
    tokens: str | slice
    reduce: Reduce | None
    vectors: xr.DataArray | None
    round_to: str | None
    nonfinite: str

    @staticmethod
    def of(model: TransformersModel, layers: Any, site: Any, tokens: Any, *rest: Any) -> _What:
        reduce, vectors, round_to, nonfinite = rest
        if reduce is not None and vectors is not None:
            raise ValueError("Give reduce= or vectors=, not both; reduce the projections after.")
        if isinstance(reduce, str) and reduce != "mean":
            raise ValueError(f"reduce={reduce!r} was asked for; there is 'mean', or a function.")
        if round_to not in (None, "bfloat16") or nonfinite not in ("raise", "mark"):
            raise ValueError(
                f"round_to={round_to!r} and nonfinite={nonfinite!r} were asked for; round_to is "
                "None or 'bfloat16', nonfinite 'raise' or 'mark'."
            )
        depth = range(len(model.layers))
        if vectors is not None:
            vectors, layers = _fitting(model, vectors, layers, depth)
        wanted = sites.check_layers(model, depth if layers is None else layers, site)
        if vectors is not None:
            vectors = vectors.sel(layer=wanted)
        return _What(wanted, site, tokens, reduce, vectors, round_to, nonfinite)

    @property
    def reducer(self) -> Reducer | None:
        return keep_mean if self.reduce == "mean" else self.reduce  # type: ignore[return-value]

    def directions(self) -> dict[int, torch.Tensor]:
        if self.vectors is None:
            return {}
        wide = self.vectors.astype(np.float32)
        return {layer: torch.as_tensor(wide.sel(layer=layer).values) for layer in self.layers}

    @property
    def last_dim(self) -> str:
        return "dim" if self.vectors is None else "trait"

    def described(self) -> dict[str, Any]:
        named = self.tokens
        if isinstance(named, slice):
            named = f"{named.start}:{named.stop}:{named.step}"
        made = {
            "layers": self.layers,
            "site": sites.site_name(self.site),
            "tokens": named,
            "reduce": sites.site_name(self.reduce) if self.reduce else None,
            "vectors": None if self.vectors is None else _hash(self.vectors),
            "round_to": self.round_to,
        }
        return made if self.nonfinite == "raise" else {**made, "nonfinite": self.nonfinite}


@dataclass(frozen=True)
class _Work:
    model: TransformersModel
    transcripts: xr.Dataset
    kept: np.ndarray
    what: _What
    made_with: dict[str, Any]
    progress: bool

    def axis(self) -> np.ndarray:
        """The token columns that any row keeps: one axis for all shards."""
        columns = np.flatnonzero(self.kept.any(0))
        return np.arange(columns[0], columns[-1] + 1)


@dataclass(frozen=True)
class _Values:
    """One batch on the CPU: (kept or row, layer, dim or trait), and norms beside projections."""

    rows: list[int]
    values: torch.Tensor
    norms: torch.Tensor | None


def _batches(work: _Work, plan: Sequence[Sequence[int]]) -> Iterator[_Values]:
    # The copy of one batch to the CPU overlaps the next batch's forward.
    total = int(tensors.lengths(work.transcripts)[[r for rows in plan for r in rows]].sum())
    bar = tqdm(total=total, unit="token", desc="capture", disable=not work.progress, leave=False)
    waiting: list[tuple[Any, _Values]] = []
    with bar, torch.no_grad():
        for rows in plan:
            parts = [
                _copied(work, list(part), saved)
                for part, saved in batching.run(rows, lambda part: _trace(work, list(part)))
            ]
            if waiting:
                yield _joined(work, waiting)
            waiting = parts
            bar.update(int(tensors.lengths(work.transcripts.isel(prompt=list(rows))).sum()))
        if waiting:
            yield _joined(work, waiting)


def _trace(work: _Work, rows: list[int]) -> list[tuple[torch.Tensor, ...]]:
    """Per layer: (values, whether finite[, norms]) of the kept tokens, on the device."""
    model, what = work.model, work.what
    made = tensors.batch(work.transcripts, rows, pad=model.tokenizer.pad_token_id or 0)
    index, sizes = _flat_index(work, rows, made)
    # plain values and functions that need torch alone: inside, a remote server must know them
    layers, site, deepest = what.layers, what.site, edited_depth(model)
    reduce, directions = what.reducer, what.directions()
    with rows_of(model, made), model.trace(made.model_inputs, **remote_options(model)) as tracer:
        saved = nnsight.save([])
        for layer in layers:
            value = read_site(model, layer, site)
            saved.append(keep(value, index, sizes, reduce, directions.get(layer)))
        if deepest >= layers[-1]:
            # an edit of the last block (or deeper) has to run before the forward is stopped
            first(model.layers[deepest].output)
        tracer.stop()
    return saved


def _flat_index(
    work: _Work, rows: list[int], made: tensors.Batch
) -> tuple[torch.Tensor, list[int]]:
    # kept[row, column] is in the transcripts' columns; real tokens keep their order in the batch
    real = work.transcripts.token_id.transpose("prompt", "token").values[rows] >= 0
    chosen = torch.zeros(made.attention_mask.shape, dtype=torch.bool)
    chosen[made.attention_mask.bool()] = torch.as_tensor(work.kept[rows][real])
    return chosen.flatten().nonzero().squeeze(1), chosen.sum(1).tolist()


def _copied(work: _Work, rows: list[int], saved: Any) -> tuple[Any, _Values]:
    """The saved values on their way to the CPU, and the event that says they are there."""
    finite = [entry[1] for entry in saved]
    first = saved[0][0]
    shape = (first.shape[0], len(saved), first.shape[1])
    pinned = first.is_cuda
    values = torch.empty(shape, dtype=first.dtype, pin_memory=pinned)
    norms = None if len(saved[0]) < 3 else torch.empty(shape[:2], pin_memory=pinned)
    for n, entry in enumerate(saved):
        values[:, n].copy_(entry[0], non_blocking=True)
        if norms is not None:
            norms[:, n].copy_(entry[2], non_blocking=True)
    event = None
    if pinned:
        event = torch.cuda.Event()
        event.record()
    return (event, finite), _Values(rows, values, norms)


def _joined(work: _Work, parts: list[tuple[Any, _Values]]) -> _Values:
    for (event, finite), values in parts:
        if event is not None:
            event.synchronize()
        if work.what.nonfinite == "raise":
            _refuse_nonfinite(work, finite, values)
    found = [values for _, values in parts]
    if len(found) == 1:
        return found[0]
    norms = [values.norms for values in found if values.norms is not None]
    return _Values(
        [row for values in found for row in values.rows],
        torch.cat([values.values for values in found]),
        torch.cat(norms) if norms else None,
    )


def _refuse_nonfinite(work: _Work, finite: Sequence[torch.Tensor], values: _Values) -> None:
    bad = [layer for layer, flag in zip(work.what.layers, finite, strict=True) if not bool(flag)]
    if not bad:
        return
    column = work.what.layers.index(bad[0])
    wrong = ~torch.isfinite(values.values[:, column]).all(-1)
    at = int(wrong.nonzero()[0]) if bool(wrong.any()) else 0
    places = np.argwhere(work.kept[values.rows])
    if work.what.reduce is not None:
        name, token = ids_of(work.transcripts)[values.rows[at]], "(reduced)"
    else:
        row, position = places[at]
        name = ids_of(work.transcripts)[values.rows[row]]
        token = str(work.transcripts.token.values[position])
    raise ValueError(
        f"A value that is not finite was captured: prompt {name!r}, token {token}, layer {bad[0]} "
        f"(dtype {origin(work.model).dtype}; float16 overflows on outlier dimensions). "
        "Load with dtype='bfloat16', or capture with nonfinite='mark' to keep such values."
    )


def _frame(work: _Work, rows: Sequence[int]) -> xr.Dataset:
    """The labels of these rows, without values; what is not kept is a hole."""
    axis = work.axis()
    chosen = work.transcripts.isel(prompt=list(rows), token=axis)
    kept = work.kept[np.asarray(rows)][:, axis]
    coords: dict[str, Any] = {
        str(n): c for n, c in chosen.coords.items() if set(c.dims) <= {"prompt", "token"}
    }
    coords["token_id"] = (("prompt", "token"), np.where(kept, chosen.token_id.values, -1))
    coords["role"] = (("prompt", "token"), np.where(kept, chosen.role.values, "pad"))
    coords["token_text"] = (("prompt", "token"), np.where(kept, chosen.token_text.values, ""))
    if work.what.reduce is not None:
        coords = {n: c for n, c in coords.items() if n not in (*tensors.ALONG_TOKENS, "token")}
    coords["layer"] = np.asarray(work.what.layers, np.int32)
    if work.what.vectors is not None:
        coords["trait"] = work.what.vectors["trait"].values.astype(np.str_)
    return stamp(xr.Dataset(coords=coords), work.made_with)


def _dims(what: _What) -> tuple[str, ...]:
    return (
        ("prompt", "layer", "dim") if what.reduce else ("prompt", "token", "layer", what.last_dim)
    )


def _name(what: _What) -> str:
    if what.vectors is not None:
        return "projection"
    return sites.site_name(what.site).split(":")[0].replace("<lambda>", "value")


def _in_memory(work: _Work, plan: Sequence[Sequence[int]]) -> xr.DataArray:
    everything = list(range(work.transcripts.sizes["prompt"]))
    frame, what = _frame(work, everything), work.what
    axis = work.axis()
    filled: dict[str, np.ndarray] = {}
    for batch in _batches(work, plan):
        for name, tensor in (("values", batch.values), ("norm", batch.norms)):
            if tensor is None:
                continue
            values = tensor.float().numpy()
            where = (batch.rows,) if what.reduce else _places(work.kept[:, axis], batch.rows)
            outer = (len(everything),) if what.reduce else (len(everything), len(axis))
            target = filled.setdefault(
                name, np.full((*outer, *values.shape[1:]), np.nan, np.float32)
            )
            target[where] = values
    values = filled["values"]
    if what.round_to:
        values = shard.round_to_bfloat16(values)
    array = xr.DataArray(values, dims=_dims(what), coords=frame.coords, name=_name(what))
    if "norm" in filled:
        array = array.assign_coords(norm=(("prompt", "token", "layer"), filled["norm"]))
    return stamp(_with_dim(array), work.made_with)


def _places(kept: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    inner, columns = np.nonzero(kept[np.asarray(rows)])
    return np.asarray(rows)[inner], columns


def _with_dim(array: xr.DataArray) -> xr.DataArray:
    if "dim" not in array.dims:
        return array
    return array.assign_coords(dim=np.arange(array.sizes["dim"], dtype=np.int32))


def _to_folder(
    work: _Work,
    plan: Sequence[Sequence[int]],
    path: Path,
    compression: str,
    writers: int | None,
) -> xr.DataArray:
    if compression not in shard.CODECS:
        raise ValueError(
            f"compression={compression!r} was asked for; there are {', '.join(shard.CODECS)}."
        )
    settings = {k: v for k, v in work.made_with.items() if k != "versions"}
    folder = Folder(path)
    with folder.locked():
        folder.begin({**settings, "compression": compression}, len(plan))
        done = folder.records()
        left = [n for n in range(len(plan)) if f"{n:05d}.nc" not in done]
        if done and work.progress:
            tqdm.write(f"capture: {len(done)} of {len(plan)} shards of {path} are there already")
        processes = _writer_processes(work.model) if writers is None else writers
        with Writers(processes, folder.record) as queue:
            batches = _batches(work, [plan[n] for n in left])
            for n, batch in zip(left, batches, strict=True):
                queue.submit(_job(work, batch, path / f"{n:05d}.nc", compression))
    return open_store(path)


def _job(work: _Work, batch: _Values, path: Path, compression: str) -> shard.Job:
    frame, what = _frame(work, batch.rows), work.what
    if batch.norms is not None:
        where = frame["token_id"].values >= 0
        norm = tensors.scatter(batch.norms.numpy(), where)
        frame = frame.assign_coords(norm=(("prompt", "token", "layer"), norm))
    if what.last_dim == "dim":
        frame = frame.assign_coords(dim=np.arange(batch.values.shape[-1], dtype=np.int32))
    values = batch.values
    raw = values.view(torch.uint16) if values.dtype == torch.bfloat16 else values
    return shard.Job(
        path=path,
        frame=frame,
        name=_name(what),
        dims=_dims(what),
        attrs={},
        raw=raw.numpy(),
        dtype=str(values.dtype).removeprefix("torch."),
        compression=compression,
        round_to=what.round_to,
    )


def _writer_processes(model: TransformersModel) -> int:
    import os

    on_gpu = device_of(model).type == "cuda"
    return max((os.cpu_count() or 2) // 2, 1) if on_gpu else 0


def _kept_tokens(transcripts: xr.Dataset, tokens: str | slice) -> np.ndarray:
    """Which (prompt, token) places to keep."""
    axis = transcripts.token.values
    if tokens == "response":
        chosen = axis >= -1
    elif tokens == "all":
        chosen = np.ones_like(axis, bool)
    elif isinstance(tokens, slice):
        picked = transcripts.token.sel(token=tokens).values
        chosen = np.isin(axis, picked)
    else:
        raise ValueError(
            f"tokens={tokens!r} was asked for; there are 'response', 'all', and slices of token "
            "labels such as slice(0, 4) (both ends included)."
        )
    kept = (transcripts.token_id.transpose("prompt", "token").values >= 0) & chosen
    empty = [name for name, row in zip(ids_of(transcripts), kept, strict=True) if not row.any()]
    if empty:
        raise ValueError(
            f"tokens={tokens!r} keeps nothing of {len(empty)} prompts, such as {empty[0]!r}, "
            f"whose labels are within {axis.min()} to {axis.max()}. Leave them out or widen it."
        )
    return kept


def _fitting(
    model: TransformersModel, vectors: xr.DataArray, layers: Any, depth: range
) -> tuple[xr.DataArray, Any]:
    if "trait" not in vectors.dims:
        vectors = vectors.expand_dims(trait=[str(vectors.coords.get("trait", "vector"))])
    if "layer" not in vectors.dims:
        raise ValueError(
            f"vectors has the dims {vectors.dims}; capture needs (trait, layer, dim). "
            "Add the layer with vectors.expand_dims(layer=[12])."
        )
    if set(vectors.dims) != {"trait", "layer", "dim"}:
        raise ValueError(
            f"vectors has the dims {vectors.dims}; capture needs (trait, layer, dim). "
            "Choose one method with vectors.sel(method=…)."
        )
    width = model._module.config.get_text_config().hidden_size
    if vectors.sizes["dim"] != width:
        raise ValueError(
            f"vectors have {vectors.sizes['dim']} dims and this model's residual stream {width}: "
            "they come from another model."
        )
    there = vectors["layer"].values.tolist()
    layers = [layer for layer in depth if layer in there] if layers is None else list(layers)
    missing = [layer for layer in layers if layer not in there]
    if missing or not layers:
        raise ValueError(f"Layers {missing} are not in vectors, which have {there}.")
    return vectors.transpose("trait", "layer", "dim"), layers


def _hash(vectors: xr.DataArray) -> str:
    import hashlib

    values = np.ascontiguousarray(vectors.values, np.float32)
    names = digest([vectors["trait"].values.tolist(), vectors["layer"].values.tolist()])
    return names + hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _refuse_other_tokenizer(model: TransformersModel, transcripts: xr.Dataset) -> None:
    from tracekit.provenance import tokenizer_hash

    refuse_disagreement(
        {"tokenizer": tokenizer_hash(model.tokenizer)}, read(transcripts), ("tokenizer",)
    )
