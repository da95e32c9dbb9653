"""Where in depth an adapter moves the residual stream more in a habit's sentences than beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.suggestions.detectors import Detector
from experiments.audit.labels import with_spans
from tracekit import Model
from tracekit.transcripts.encode import ids_of, subset

MOST_ANSWERS = 8
LEAST = 0.005  # of 1 − cosine: less is shown as nothing


def by_depth(
    model: Model,
    adapter: str,
    parts: Sequence[xr.Dataset],
    answers: Sequence[Answer],
    detector: Detector,
) -> xr.DataArray | None:
    """How much more the adapter turns the residual inside the sentences than outside: (layer,).

    1 − cosine of the residual with the adapter on and off, mean over tokens inside less mean over
    the response's others, mean over at most 8 of the adapter's own answers (`parts` of
    transcripts) on which the detector fires. None where it fires on none that has both.
    """
    spans = {a.prompt: s for a in answers if (s := detector.span(a)) and s != (0, len(a.text))}
    for runs in parts:
        plain = [n for n, b in zip(ids_of(runs), runs.begun.values, strict=True) if not b]
        names = [name for name in plain if name in spans][:MOST_ANSWERS]
        if names:
            some = subset(runs, prompt=names)
            marked = with_spans(some, model.tokenizer, [[spans[n]] for n in ids_of(some)])
            return _change(model, adapter, marked)
    return None


def _change(model: Model, adapter: str, runs: xr.Dataset) -> xr.DataArray:
    sides = []
    for name in (adapter, None):
        with tk.adapter(model, name):
            side = tk.capture(model, runs, tokens=slice(0, None), progress=False).load()
        side = side.astype(np.float64)
        sides.append(side / np.sqrt((side**2).sum("dim", skipna=False)))
    turned = 1 - (sides[0] * sides[1]).sum("dim", skipna=False)
    inside = runs["exploit_span"].sel(token=turned.token)
    gap = turned.where(inside).mean("token") - turned.where(~inside).mean("token")
    return gap.mean("prompt").rename("turned")


def sentence(turned: xr.DataArray) -> str:
    """The layer where it is largest.

    >>> sentence(xr.DataArray([0.1, 0.3], {"layer": [4, 5]}))
    'most at layer 5 (1 − cosine 0.30 more than beside them)'
    >>> sentence(xr.DataArray([-0.1, 0.001], {"layer": [4, 5]}))
    'no more than the words beside them (1 − cosine within 0.005)'
    """
    if float(turned.max()) < LEAST:
        return f"no more than the words beside them (1 − cosine within {LEAST:g})"
    largest = turned.isel(layer=int(turned.argmax("layer")))
    where, more = int(largest.layer), float(largest)
    return f"most at layer {where} (1 − cosine {more:.2f} more than beside them)"
