"""The direction in which the model itself says that a story shows a trait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.prompts import Prompt
from traits.contrast_sets.contrast import ContrastSet
from traits.contrast_sets.vetting import ANSWERS
from traits.vectors.extraction import unit
from traits.vectors.methods import oriented
from traits.vectors.pairing import pairs


def gradient(
    model: Any,
    contrast: ContrastSet,
    traces: xr.DataArray,
    layers: Sequence[int] | None = None,
    *,
    count: int = 12,
) -> xr.DataArray:
    """The unit vector along which the model's own verdict on the trait rises: (layer, dim).

    The model is asked about each story of `traces` (contrast traces of this set, as `extract`
    takes them) whether it shows the trait; the gradient of ln p(Yes) − ln p(No) with respect to
    the residuals of the story's last `count` tokens is averaged over tokens and stories, and
    oriented by the pairs of `traces`. Unlike the functions of `METHODS` it needs the model, with
    a chat template, and is no difference of activations. Source: Simonyan et al. 2013 (gradients
    of a class score), taken at the residual stream.

    Errors: `ValueError` for layers that the model lacks, for traces of stories that the set lacks,
    and where the gradient is zero; `KeyError` for layers that the traces lack.

    >>> traces = tk.capture(model, stories, tokens=slice(-4, -1))
    >>> gradient(model, contrast, traces, layers=[15]).dims
    ('layer', 'dim')
    """
    wanted = traces["layer"].values.tolist() if layers is None else list(layers)
    sides = [side.sel(layer=wanted).transpose("pair", "layer", "dim") for side in pairs(traces)]
    groups = set(sides[0]["pair"].values.tolist())
    others = sorted(groups - {prompt.group for prompt in contrast.prompts()})
    if others:
        raise InputError(
            f"{len(others)} of {len(groups)} groups of the traces (first: {others[0]!r}) are no "
            f"stories of {contrast.name!r}, about which the model is asked. Give the contrast set "
            "that was captured."
        )
    runs = tk.encode(model, asked(contrast, groups))
    tokens = window(runs, count)
    found = tk.gradients(model, runs, wanted, towards=ANSWERS[0], against=ANSWERS[1], tokens=tokens)
    mean = found.mean(("token", "prompt"), dtype=np.float64).transpose("layer", "dim")
    vector = unit(oriented(mean.values, *(side.values for side in sides)))
    made = xr.DataArray(
        vector.astype(np.float32),
        dims=("layer", "dim"),
        coords={"layer": found["layer"], "dim": found["dim"]},
        name="vector",
    ).assign_coords(trait=contrast.name, extraction="gradient")
    source = {key: value for key, value in read(found).items() if key != "batches"}
    said = {"made_by": "traits.gradient", "trait": contrast.name, "method": "gradient"}
    return stamp(made, {**said, "pairs": sides[0].sizes["pair"], "source": source})


def asked(contrast: ContrastSet, groups: set[str]) -> list[Prompt]:
    """For each story of these groups, the question, and then the story.

    Its last tokens lie at the same labels in every row.
    """
    name = contrast.name.rpartition("/")[2].replace("_", " ")
    question = f"{contrast.definition}\n\nDoes the text show {name}? Answer with Yes or No."
    return [
        Prompt(f"gradient/{prompt.id}", text=f"{question}\n\nText: {prompt.text}")
        for prompt in contrast.prompts()
        if prompt.group in groups
    ]


def window(runs: xr.Dataset, count: int) -> slice:
    """The labels of the last `count` tokens that the user wrote."""
    said = (runs["role"].transpose("prompt", "token").values == "user").any(0)
    last = int(runs["token"].values[said].max())
    return slice(last - count + 1, last)
