"""Gradients along a path: a layer's residuals move in a straight line."""

from __future__ import annotations

from collections.abc import Sequence

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import TransformersModel

from tracekit.edits.compatibility import require_layers, source
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.load import origin
from tracekit.passes.readouts.metrics import Judge
from tracekit.passes.starting import put, require_local, value
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.padded import Batch

Kept = Float[torch.Tensor, "kept dim"]


def along(
    model: TransformersModel,
    made: Batch,
    rows: Int[torch.Tensor, row],
    judge: Judge,
    layers: Sequence[int],
    at: Int[torch.Tensor, kept],
    ends: tuple[Sequence[Kept], Sequence[Kept]],
    steps: int,
    site: str = "residual",
) -> list[Kept]:
    """By layer, the mean gradient at the places `at` on the way from the first to the second end.

    `at` are places in (row × column); elsewhere the values are the model's own. Each layer by
    itself, at the midpoints of `steps` equal parts.
    """
    require_local(model, "A path of gradients")
    means = []
    for n, layer in enumerate(layers):
        first, last = ends[0][n], ends[1][n]
        mean = torch.zeros_like(first)
        for step in range(steps):
            there = first + (step + 0.5) / steps * (last - first)
            mean += _slope(model, made, rows, judge, layer, at, there, site) / steps
        means.append(mean)
    return means


def _slope(
    model: TransformersModel,
    made: Batch,
    rows: torch.Tensor,
    judge: Judge,
    layer: int,
    at: torch.Tensor,
    there: Kept,
    site: str,
) -> Kept:
    options = {"use_cache": False, **judge.options(model)}
    with torch.enable_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        moved = _moved(value(model, layer, site), at, there)
        put(model, layer, site, moved)
        residual = None
        if judge.layer is not None:
            same = judge.layer == layer and site == "residual"
            residual = moved if same else sites.read(model, judge.layer, "residual")
        scores = judge.read(model, made, rows, residual)
        slope = nnsight.save(torch.autograd.grad(scores.sum(), moved)[0])
    return slope.flatten(0, 1)[at].float()


def _moved(own: torch.Tensor, at: torch.Tensor, there: Kept) -> torch.Tensor:
    flat = own.detach().flatten(0, 1).clone()
    flat[at.to(flat.device)] = there.to(flat)
    return flat.view_as(own).requires_grad_()


def baselines(
    model: TransformersModel,
    traces: xr.DataArray | None,
    transcripts: xr.Dataset,
    kept: np.ndarray,
    layers: Sequence[int],
) -> np.ndarray | None:
    """Where paths begin: (prompt, token, layer, dim) in the transcripts' own order.

    Errors: `ValueError` for traces that lack a prompt, token or layer of what is kept, and for
    those that another model or another site gave.
    """
    if traces is None:
        return None
    _require_own(model, traces)
    dims = ("prompt", "token", "layer", "dim")
    if set(traces.dims) != set(dims):
        raise InputError(
            f"baseline= was given an array over {traces.dims}; it needs {dims}, as tk.capture "
            "makes it of the same transcripts."
        )
    require_layers(traces, list(layers))
    stored = traces.transpose(*dims).reindex(
        prompt=ids_of(transcripts), token=transcripts.token.values
    )
    values = stored.sel(layer=list(layers)).values
    lacking = np.isnan(values).any((2, 3)) & kept
    if lacking.any():
        row, column = np.argwhere(lacking)[0]
        raise InputError(
            f"baseline= lacks {int(lacking.sum())} of {int(kept.sum())} tokens, the first is "
            f"{ids_of(transcripts)[row]!r}, token {int(transcripts.token.values[column])}. "
            "Capture it at the same tokens."
        )
    return values


def _require_own(model: TransformersModel, traces: xr.DataArray) -> None:
    made, about = source(traces) or {}, origin(model)
    ours = {"weights": about.weights, "site": "residual"}
    wrong = {n: made[n] for n, own in ours.items() if made.get(n) not in (None, own)}
    if wrong:
        raise InputError(
            f"baseline= was given traces of {made.get('model')} with {wrong}; a path of "
            f"{about.name} begins in its own residual stream ({ours}). Capture it with this model."
        )
