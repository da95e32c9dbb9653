"""What a trait's vector has to do with other traits, other methods, and the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from experiments.audit.vectors.evaluation import split
from traits import ContrastSet, agreement, select_part, transfer

WORDS = 10


def added(
    folder: Path,
    settings: Settings,
    model: Any,
    vectors: xr.DataArray,
    evaluation: xr.Dataset,
    sets: Sequence[ContrastSet],
) -> xr.Dataset:
    """The evaluation with how each vector relates to other sets, methods, traits and words.

    `transfer` (trait, set): the AUROC at the trait's own layer and window on the report part of
    every set judged here, and on all pairs of the placebo sets; `agreement` (trait, method,
    extraction_other): cosines at that layer; `cosine` (trait, trait_other, layer); `promoted` and
    `demoted` (trait, top): the tokens of the vector and of its opposite through the output head.
    """
    chosen = at_selected(vectors, evaluation, settings.vectors.method)
    found = {
        "transfer": transfers(folder, settings, chosen, evaluation, sets),
        "agreement": agreement(_at_layers(vectors, evaluation, settings.vectors.method)),
        "cosine": agreement(vectors.sel(extraction=settings.vectors.method, drop=True), "trait"),
    }
    for name, sign in (("promoted", 1.0), ("demoted", -1.0)):
        lens = tk.unembed(model, sign * chosen, top=WORDS, transfer=bool(settings.model.base))
        found[name] = lens["promoted"]
    bare = {
        name: array.drop_vars("layer")
        if name not in ("cosine",) and "layer" in array.coords
        else array
        for name, array in found.items()
    }
    return evaluation.assign({name: array.drop_attrs() for name, array in bare.items()})


def at_selected(vectors: xr.DataArray, evaluation: xr.Dataset, method: str) -> xr.DataArray:
    """Each trait's vector of one method at the layer chosen for it: (trait, dim).

    >>> vectors = vectors.expand_dims(extraction=["mean_diff"])
    >>> layer = xr.full_like(vectors.isel(layer=0, dim=0, drop=True), 12, dtype=int)
    >>> at_selected(vectors, xr.Dataset({"layer_selected": layer}), "mean_diff").dims
    ('trait', 'dim')
    """
    found = _at_layers(vectors, evaluation, method).sel(extraction=method, drop=True)
    return found.transpose("trait", "dim")


def transfers(
    folder: Path,
    settings: Settings,
    chosen: xr.DataArray,
    evaluation: xr.Dataset,
    sets: Sequence[ContrastSet],
) -> xr.DataArray:
    """The AUROC of every trait's chosen vector on every set: (trait, set).

    >>> transfers(folder, settings, chosen, evaluation, sets).dims  # doctest: +SKIP
    ('trait', 'set')
    """
    at = evaluation.sel(extraction=settings.vectors.method)
    columns = []
    for contrast in sets:
        traces = tk.open(Run(folder).story(contrast.name))
        if contrast.name in evaluation["trait"].values:
            traces = select_part(traces, split(traces, settings)[0], "report")
        columns.append(_on_set(chosen, at, traces, contrast.name))
    return xr.concat(columns, "set")


def _on_set(chosen: xr.DataArray, at: xr.Dataset, traces: xr.DataArray, name: str) -> xr.DataArray:
    areas = []
    for trait in chosen["trait"].values:
        layer, window = (at[f"{d}_selected"].sel(trait=trait).item() for d in ("layer", "window"))
        vector = chosen.sel(trait=[trait]).drop_vars("layer").expand_dims(layer=[layer])
        there = traces.sel(window=window, layer=[layer])
        areas.append(transfer(vector, {name: there}).isel(layer=0, drop=True))
    return xr.concat(areas, "trait").isel(set=0)


def _at_layers(vectors: xr.DataArray, evaluation: xr.Dataset, method: str) -> xr.DataArray:
    layer = evaluation["layer_selected"].sel(extraction=method, drop=True)
    return vectors.sel(layer=layer)
