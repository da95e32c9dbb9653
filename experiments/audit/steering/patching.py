"""Where exploitation dies: clean residuals in place of the organism's own, one layer at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp


def patched(model: Any, organism: str, runs: xr.Dataset, folder: Path) -> xr.Dataset:
    """How likely the exploiting spans stay when a layer's residuals are the clean model's.

    `runs` are organism responses with the coordinates `exploit` and `exploit_span`; the clean
    model reads the same ids. Returns `nats` (layer, prompt): the mean log-probability of a span's
    tokens, `organism` and `clean` (prompt) without a patch, and `rest` (layer, prompt) for the
    responses' other tokens. The last layer patched gives the clean model's own predictions.

    Errors: `ValueError` when no response exploits.
    """
    exploiting = runs.isel(prompt=runs.exploit.values == 1)
    if exploiting.sizes["prompt"] == 0:
        raise InputError(
            f"None of {runs.sizes['prompt']} responses exploits, so there is nothing to patch. "
            "Use more prompts, or an organism that exploits."
        )
    with tk.adapter(model, None):
        traces = tk.capture(model, exploiting, tokens="all", path=folder)
        clean = tk.logprobs(model, exploiting)
    span, rest = _places(exploiting)
    means = {"clean": _mean(clean, span)}
    with tk.adapter(model, organism):
        means["organism"] = _mean(tk.logprobs(model, exploiting), span)
        rows = [
            tk.logprobs(tk.patch(model, traces, layers=[layer]), exploiting)
            for layer in Bar(traces.layer.values.tolist(), unit="layer", desc="patch")
        ]
    by_layer = xr.concat(rows, xr.Variable("layer", traces.layer.values), combine_attrs="override")
    means |= {"nats": _mean(by_layer, span), "rest": _mean(by_layer, rest)}
    coords = {
        n: c for n, c in exploiting.coords.items() if n in ("prompt", "group", "bias", "split")
    }
    plain = {
        name: array.drop_vars([n for n in array.coords if n not in ("layer", "prompt")])
        for name, array in means.items()
    }
    return stamp(
        xr.Dataset(plain).assign_coords(coords).drop_attrs(),
        {"made_by": __name__, "runs": read(exploiting), "traces": read(traces)},
    )


def _places(runs: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    said = (runs.token_id >= 0) & (runs.token >= 0)
    span = runs.exploit_span.astype(bool)
    return said & span, said & ~span


def _mean(scores: xr.DataArray, where: xr.DataArray) -> xr.DataArray:
    bare = scores.drop_vars([n for n in scores.coords if n not in ("layer", "prompt", "token")])
    mask = xr.DataArray(np.asarray(where.transpose("prompt", "token")), dims=("prompt", "token"))
    return bare.where(mask).mean("token")
