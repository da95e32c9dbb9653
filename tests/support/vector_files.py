"""Vectors to write into the files of other tools."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tracekit.storage.provenance import stamp


def vectors() -> xr.DataArray:
    """Vectors (trait, extraction, layer, dim) with all labels and a provenance."""
    values = np.random.default_rng(0).normal(size=(3, 2, 4, 8)).astype(np.float32)
    coords = {
        "trait": ["alignment/honesty", "alignment/sycophancy", "placebo/tense"],
        "extraction": ["mean_diff", "probe"],
        "layer": np.arange(4, dtype=np.int32),
        "dim": np.arange(8),
    }
    array = xr.DataArray(values, dims=("trait", "extraction", "layer", "dim"), coords=coords)
    return stamp(array, {"source": {"weights": "abc", "tokenizer": "def"}})


def vector() -> xr.DataArray:
    """One of them, (layer, dim), from layer 1 on, as a GGUF file takes it."""
    labels = {"trait": "placebo/tense", "extraction": "probe", "layer": slice(1, None)}
    return vectors().sel(labels, drop=True)
