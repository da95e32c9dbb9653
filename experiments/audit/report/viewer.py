"""The page's last part: what projections there are, token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.phases.projections import read
from experiments.audit.run import Run

ARMS = ("organism/organism", "clean/organism", "organism/clean", "clean/clean")
LAYERS = 8  # shown besides those chosen; all of 30 would triple the page


def viewed(folder: Path) -> tk.View:
    """Cosines of the four arms with each trait, at some layers; exploit spans are marked."""
    arms = {arm: read(folder, arm).sel(token=slice(0, None)) for arm in ARMS}
    organism = arms[ARMS[0]]
    chosen = tk.open(Run(folder).analysis)["layer_selected"].rename("layer")
    layers = shown_layers(organism["layer"].values, chosen.values)
    exploits = organism["prompt"].values[organism["exploit"].values == 1]
    captions: dict[str, str] = {}
    for name in ("clean", "organism"):
        captions |= text_of(tk.open(Run(folder).responses(name)), "text")
    return tk.view(
        {arm: array.sel(layer=layers) for arm, array in arms.items()},
        marked="exploit_span",
        captions=captions,
        chosen=chosen,
        start={"prompt": exploits[0]} if len(exploits) else None,
    )


def shown_layers(layers: np.ndarray, chosen: np.ndarray) -> list[int]:
    """At most a dozen layers: evenly through the depth, and those that were chosen.

    >>> shown_layers(np.arange(4), np.array([2]))
    [0, 1, 2, 3]
    """
    even = layers[np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).astype(int)]
    return sorted({*even.tolist(), *np.asarray(chosen).tolist()})


def text_of(runs: xr.Dataset, name: str) -> dict[str, str]:
    """A text of each prompt by its id."""
    return {str(k): str(v) for k, v in zip(runs["prompt"].values, runs[name].values, strict=True)}
