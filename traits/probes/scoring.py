"""A probe on traces: the score of each token, and of each response; and which traces it fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.provenance import read as provenance_of
from tracekit.storage.provenance import stamp
from tracekit.transcripts.pooling import Poolable, Pooling, chosen, pool
from tracekit.transcripts.selection import Tokens
from traits.probes import record
from traits.probes.fitting.rows import there
from traits.probes.fitting.token_values import token_values
from traits.probes.record import Probe
from traits.probes.standing import (
    require_fit,
    require_kept,
    require_pooled,
    require_projections,
)

Pair = tuple[xr.DataArray, xr.DataArray | None]


def score(
    probe: xr.Dataset,
    traces: xr.DataArray,
    *,
    pooling: Poolable | None = None,
    tokens: Tokens | None = None,
    transfer: bool = False,
) -> xr.DataArray:
    """A probe's score of each response: (prompt), or (prompt, target).

    `traces` are (prompt, token, layer, dim), with the probe's layers among them, or (prompt,
    layer, dim), whose score is that of the mean; or projections (prompt, token, layer, trait) made
    inside the trace with the probe's own weights: `tk.capture(…, vectors=probe.weight)`. `pooling`
    and `tokens` are those the probe was fitted with, unless others are given. Units are the
    probe's: log-odds of a logistic one. Lazy (dask) traces stay lazy. The scores carry the traces'
    labels and provenance, and the attribute `pooling`.

    Errors: `ValueError` for traces of another width, depth, vocabulary or site, without the
    probe's layer, and of other weights without `transfer=True`, which is recorded; for projections
    on anything else; and for a token that counts and has no finite value, which is named.

    >>> score(probe, clean, pooling="max", tokens="all", transfer=True).dims
    ('prompt',)
    """
    read = record.read(probe)
    if "token" not in traces.dims:
        way = read.pooling if pooling is None else _text(pooling)
        known = tokens is not None or "tokens" in probe.attrs or "reduce" in read.source
        said = read.tokens if tokens is None else record.tokens_said(tokens)
        require_pooled(traces, way, said if known else None)
        made, _ = _scores(read, traces, "all", transfer)
        return _finished(made, read, traces, {"pooling": way}, "score")
    how = Pooling.read(read.pooling if pooling is None else pooling)
    if tokens is None:
        require_kept(read, traces)
    wanted = record.tokens_of(read.tokens) if tokens is None else tokens
    scores, logits = _scores(read, traces, wanted, transfer)
    given = {"attention": logits} if how.way == "attention" else {}
    made = pool(scores, how, tokens=wanted, **given)
    return _finished(made, read, traces, {"pooling": str(how)}, "score")


def _text(pooling: Poolable) -> str:
    return pooling if isinstance(pooling, str) else str(Pooling.read(pooling))


def token_scores(
    probe: xr.Dataset, traces: xr.DataArray, *, transfer: bool = False
) -> xr.DataArray:
    """A probe's score of every token: (prompt, token), or (prompt, token, target).

    Traces and projections are as in `score`; holes stay NaN, lazy traces lazy. An attention
    probe's are weight · residual + offset, before its attention.

    Errors: as those of `score`.

    >>> token_scores(probe, clean, transfer=True).dims
    ('prompt', 'token')
    """
    read = record.read(probe)
    scores, _ = _scores(read, traces, "all", transfer)
    if "token" not in scores.dims:
        raise InputError(
            f"Scores of tokens were asked for, and the traces have the dims {traces.dims}: one "
            "value a response. Capture without reduce, or use traits.score."
        )
    return _finished(scores, read, traces, {}, "score")


def _scores(probe: Probe, traces: xr.DataArray, tokens: Tokens, transfer: bool) -> Pair:
    """Token scores and logits of attention; a token among `tokens` without a value is refused."""
    if "dim" not in traces.dims:
        return _of_projections(probe, traces), None
    require_fit(probe, traces, transfer)
    parts = [_at_layer(probe, traces, layer, tokens) for layer in dict.fromkeys(probe.layers)]
    order = np.argsort(np.concatenate([where for where, _ in parts]), kind="stable")
    pairs = [pair for _, pair in parts]
    scores = _joined(probe, [one for one, _ in pairs], order)
    logits = [one for _, one in pairs if one is not None]
    return scores, _joined(probe, logits, order) if logits else None


def _at_layer(
    probe: Probe, traces: xr.DataArray, layer: int, tokens: Tokens
) -> tuple[list[int], Pair]:
    where = [n for n, at in enumerate(probe.layers) if at == layer]
    parameters = {name: values[where] for name, values in probe.parameters.items()}
    at = traces.sel(layer=layer, drop=True) if "layer" in traces.dims else traces
    at = at.drop_vars("layer", errors="ignore")
    flat = "token" not in at.dims
    at = at.expand_dims("token", 1) if flat else at
    at = at if at.chunks is None else at.chunk({"token": -1, "dim": -1})
    real = xr.ones_like(at.isel(dim=0), dtype=bool) if flat else _real(at, tokens)
    count = 2 if "query" in parameters else 1
    made = xr.apply_ufunc(
        _Block(parameters, at, layer),
        at.drop_vars("dim", errors="ignore"),
        real.reset_coords(drop=True),
        xr.DataArray(np.arange(at.sizes["prompt"]), dims="prompt"),
        input_core_dims=[["token", "dim"], ["token"], []],
        output_core_dims=[["token", "target"]] * count,
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"target": len(where)}},
        output_dtypes=[np.float32] * count,
        join="override",
    )
    both = made if count == 2 else (made,)
    scores, *logits = [one.isel(token=0) if flat else one for one in both]
    return where, (scores, logits[0] if logits else None)


class _Block:
    """Scores of one block of traces, whose tokens that count all have a value."""

    def __init__(self, parameters: dict[str, Any], at: xr.DataArray, layer: int) -> None:
        self.parameters, self.layer = parameters, layer
        self.prompts = at["prompt"].values if "prompt" in at.coords else None
        self.tokens = at["token"].values if "token" in at.coords else None

    def __call__(self, values: np.ndarray, real: np.ndarray, number: np.ndarray) -> Any:
        wrong = np.argwhere(real & ~np.isfinite(values).all(-1))
        if len(wrong):
            row, column = wrong[0]
            prompt = number[row] if self.prompts is None else str(self.prompts[number[row]])
            token = column if self.tokens is None else self.tokens[column]
            raise InputError(
                f"{len(wrong)} tokens of the traces are not finite at layer {self.layer}, the "
                f"first at prompt {prompt!r}, token {token}: they have no score. Leave them out "
                "with tokens=, or capture again (nonfinite='raise' says where they arise)."
            )
        scores, logits = token_values(self.parameters, np.asarray(values, np.float32))
        made = scores.astype(np.float32)
        return made if logits is None else (made, logits.astype(np.float32))


def _real(at: xr.DataArray, tokens: Tokens) -> xr.DataArray:
    """Which tokens must have a value: those asked for that have an id, where ids are known."""
    if "token_id" not in at.coords:
        return xr.zeros_like(at.isel(dim=0), dtype=bool)
    exist = xr.DataArray(there(at), dims=("prompt", "token"))
    return exist & chosen(at, tokens).drop_vars(("prompt", "token"), errors="ignore")


def _joined(probe: Probe, parts: list[xr.DataArray], order: np.ndarray) -> xr.DataArray:
    whole = xr.concat(parts, "target", coords="minimal", compat="override").isel(target=order)
    if probe.targets is None:
        return whole.isel(target=0)
    return whole.assign_coords(target=np.array(probe.targets))


def _of_projections(probe: Probe, projections: xr.DataArray) -> xr.DataArray:
    require_projections(probe, projections)
    at = projections.isel(layer=0, drop=True) if "layer" in projections.dims else projections
    if probe.targets is None:
        return at.isel(trait=0, drop=True) + probe.parameters["offset"].item()
    named = at.rename(trait="target").assign_coords(target=np.array(probe.targets))
    return named + xr.DataArray(probe.parameters["offset"], dims="target")


def _finished(
    made: xr.DataArray, probe: Probe, traces: xr.DataArray, attrs: dict[str, str], name: str
) -> xr.DataArray:
    last = [dim for dim in made.dims if dim not in ("prompt", "token")]
    made = made.transpose("prompt", *(["token"] if "token" in made.dims else []), *last)
    made = made.drop_vars(["norm", "dim"], errors="ignore").rename(name)
    made.attrs = dict(attrs)
    if "provenance" not in traces.attrs:
        return made
    about = {"hash": probe.digest, "method": probe.method, "layers": list(probe.layers)}
    return stamp(made, {**provenance_of(traces), "probe": about, **attrs})
