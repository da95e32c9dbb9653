"""The arms: trait vectors, random ones of the same covariance, placebos, the mean difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from experiments.audit.steering.dose_settings import Steering
from experiments.audit.vectors import stories
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp
from traits import extract, load_contrast, pairs
from traits.contrast_sets.contrast import available
from traits.vectors.extraction import unit
from traits.vectors.nulls import covariance_matched


def chosen_layer(folder: Path, settings: Settings, steering: Steering) -> int:
    """The layer asked for, or the one that the audit chose for its first trait."""
    if steering.layer >= 0:
        return steering.layer
    evaluation = Run(folder).evaluation_of(settings.vectors.method)
    return int(evaluation["layer_selected"].sel(trait=settings.vectors.names[0]))


def arms(
    model: Any,
    folder: Path,
    layer: int,
    traces: xr.DataArray,
    settings: Settings,
    steering: Steering,
) -> xr.DataArray:
    """Unit directions (direction, dim) at one layer, with the coordinate `arm`.

    `arm` is trait, placebo, difference or random. `traces` (weights, prompt, dim) are the
    organism's and the clean model's response means on identical ids, of which the difference is
    made. Random directions have the covariance of the first trait's contrast activations.
    """
    vectors = tk.open(Run(folder).vectors).sel(extraction=settings.vectors.method, layer=layer)
    rows = {name: vectors.sel(trait=name).values for name in settings.vectors.names}
    kinds = dict.fromkeys(rows, "trait")
    base = (
        tk.load(settings.model.base, dtype=settings.model.dtype) if settings.model.base else model
    )
    window = _window(folder, settings)
    for name in Bar(available("placebo")[: steering.placebos], desc="placebo", leave=False):
        rows[name] = _placebo(base, name, settings, window, layer)
        kinds[name] = "placebo"
    moved = (traces.sel(weights="organism") - traces.sel(weights="clean")).mean("prompt")
    rows["organism − clean"], kinds["organism − clean"] = moved.values, "difference"
    contrast = tk.open(Run(folder).story(settings.vectors.names[0])).sel(window=window)
    for n, row in enumerate(_random(contrast.sel(layer=[layer]), steering)):
        rows[f"random {n}"], kinds[f"random {n}"] = row, "random"
    made = xr.DataArray(
        unit(np.stack(list(rows.values())).astype(np.float64)).astype(np.float32),
        dims=("direction", "dim"),
        coords={
            "direction": list(rows),
            "arm": ("direction", list(kinds.values())),
            "layer": layer,
        },
        name="direction_vector",
    )
    return stamp(made, {"made_by": __name__, "source": read(contrast)})


def _window(folder: Path, settings: Settings) -> str:
    chosen = tk.open(Run(folder).evaluation)["window_selected"]
    at = {"extraction": settings.vectors.method, "trait": settings.vectors.names[0]}
    return str(chosen.sel(at).item())


def _placebo(model: Any, name: str, settings: Settings, window: str, layer: int) -> np.ndarray:
    with tk.adapter(model, None):
        traces = stories.made(model, load_contrast(name), settings).sel(window=window)
    return extract(traces, settings.vectors.method).sel(layer=layer).values


def _random(contrast: xr.DataArray, steering: Steering) -> Sequence[np.ndarray]:
    generator = np.random.default_rng([steering.seed, 1])
    sides = [side.transpose("pair", "layer", "dim").values for side in pairs(contrast)]
    draw = covariance_matched(generator=generator)
    return [draw(*sides)[0] for _ in range(steering.randoms)]
