"""Two adapters on one set of weights: how their predictions of the same tokens differ."""

from __future__ import annotations

import os
from collections.abc import Sequence

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from nnsight import TransformersModel

from tracekit.edits.steering import rows_of
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.adapters.switch import adapter
from tracekit.model.load import model_provenance
from tracekit.model.record import remote_options
from tracekit.passes import batching
from tracekit.passes.capture import capture
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash, ids_of, token_texts
from tracekit.transcripts.selection import Tokens, kept_tokens, recorded

Name = str | os.PathLike[str] | None
Side = Name | tuple[Name, float]  # an adapter at its own strength, or at a multiple of it


def compare(
    model: TransformersModel,
    transcripts: xr.Dataset,
    adapters: tuple[Side, Side],
    layers: Sequence[int] = (),
    *,
    tokens: Tokens = "all",
    top: int = 10,
    token_budget: int | None = None,
) -> xr.Dataset:
    """What the first of two adapters (`None`: bare) makes of the same ids, against the second.

    Each is entered at its own strength, or as `(name, scale)` at a multiple of it, whatever the
    model carries now. Over (prompt, token), in nats: `log_ratio`, log p(first) − log p(second) of
    each token, and `kl`, KL(first ‖ second) of the prediction of it; NaN in holes and at a row's
    first token. Over (top): `risen` and `fallen`, the tokens of the vocabulary whose mean
    probability over all these predictions rises and falls most, and by how much. With `layers`,
    over (prompt, token, layer): `cosine` of both residuals, and `change`, the length of their
    difference in parts of the second's. Only `tokens` count, as in `capture`: of a chat,
    "response" leaves the template out. One set of weights serves both.

    Errors: `ValueError` for one adapter twice, for tokens that are not there, and as
    `tracekit.adapter`.

    >>> compare(model, runs, (lora, None)).log_ratio.dims
    ('prompt', 'token')
    """
    sides = _strengths(adapters)
    kept = kept_tokens(transcripts, tokens)
    budget = token_budget or batching.default_budget(model, parts=4)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    ids = transcripts.token_id.transpose("prompt", "token").values
    real = ids >= 0
    filled = {name: np.full(real.shape, np.nan, np.float32) for name in ("log_ratio", "kl")}
    moved: torch.Tensor | float = 0.0
    count = 0
    for rows in plan:
        both = [_predictions(model, transcripts, rows, *side) for side in sides]
        for row, first, second in zip(rows, *both, strict=True):
            following = torch.as_tensor(ids[row][real[row]][1:].astype(np.int64))[:, None]
            where = np.flatnonzero(real[row])[1:]
            here = torch.as_tensor(kept[row][where])
            where, following = where[kept[row][where]], following[here]
            first, second = first[here], second[here]
            ratio = first.gather(1, following) - second.gather(1, following)
            count += len(where)
            filled["log_ratio"][row, where] = ratio[:, 0].numpy()
            filled["kl"][row, where] = (first.exp() * (first - second)).sum(-1).numpy()
            moved = moved + (first.exp() - second.exp()).double().sum(0)
    names = ("prompt", "token", "group", "token_text")
    coords = {n: c for n, c in transcripts.coords.items() if n in names}
    coords["token_id"] = transcripts.token_id
    made = {name: (("prompt", "token"), values) for name, values in filled.items()}
    rise = _most(model, torch.as_tensor(moved) / max(count, 1), top)
    whole = xr.Dataset(made, coords).assign(rise)
    if layers:
        whole = whole.merge(_residuals(model, transcripts, sides, layers, kept), compat="override")
    made_with = []
    for name, scale in sides:
        with adapter(model, name, scale=scale):
            made_with.append(model_provenance(model))
    first_made, second_made = made_with
    made_by = {
        **read(transcripts),
        **first_made,
        "against": second_made["adapter"],
        "ids": ids_hash(transcripts),
        "tokens": recorded(tokens),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    return stamp(whole, made_by)


def _strengths(adapters: tuple[Side, Side]) -> list[tuple[Name, float]]:
    sides = [side if isinstance(side, tuple) else (side, 1.0) for side in adapters]
    if len(sides) != 2 or sides[0] == sides[1]:
        raise InputError(
            f"compare was given {adapters!r}. Give two adapters that differ, in name or in scale, "
            "or one and None: ('mine', None), (('mine', 1.5), 'mine')."
        )
    return sides


def _predictions(
    model: TransformersModel, transcripts: xr.Dataset, rows: list[int], name: Name, scale: float
) -> list[torch.Tensor]:
    """By row, the float32 log-probabilities at each of its tokens but the last, on the CPU."""
    with adapter(model, name, scale=scale):
        made = batching.batch(model, transcripts, rows)
        mask = made.attention_mask.bool()
        options = remote_options(model)
        with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
            saved = nnsight.save(head.read(model))
    logits = saved.detach().cpu()
    return [logits[n][mask[n]][:-1].float().log_softmax(-1) for n in range(len(rows))]


def _most(model: TransformersModel, moved: torch.Tensor, top: int) -> dict[str, xr.DataArray]:
    coords = {"top": np.arange(top, dtype=np.int32)}
    found = {}
    for name, sign in (("risen", 1), ("fallen", -1)):
        best = (sign * moved).topk(top)
        texts = token_texts(model.tokenizer, best.indices.numpy())
        found[name] = xr.DataArray(texts, coords, dims="top")
        values = (sign * best.values).numpy()
        found[f"{name}_by"] = xr.DataArray(values, coords, dims="top")
    return found


def _residuals(
    model: TransformersModel,
    transcripts: xr.Dataset,
    sides: Sequence[tuple[Name, float]],
    layers: Sequence[int],
    kept: Bool[np.ndarray, "prompt token"],
) -> xr.Dataset:
    arrays = []
    for name, scale in sides:
        with adapter(model, name, scale=scale):
            arrays.append(capture(model, transcripts, layers, tokens="all", progress=False))
    first, second = (one.sel(prompt=ids_of(transcripts)).astype(np.float64) for one in arrays)
    lengths = [np.sqrt((side**2).sum("dim", skipna=False)) for side in (first, second)]
    cosine = (first * second).sum("dim", skipna=False) / (lengths[0] * lengths[1])
    change = np.sqrt(((first - second) ** 2).sum("dim", skipna=False)) / lengths[1]
    both = xr.Dataset({"cosine": cosine, "change": change})
    where = xr.DataArray(kept, {n: transcripts[n] for n in ("prompt", "token")})
    both = both.where(where)
    return both.drop_vars([name for name in both.coords if name not in both.dims])
