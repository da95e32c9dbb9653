"""Probes made by hand, and what plain numpy scores with them: no tracekit in the arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk

KINDS = ("linear", "attention", "mlp")


def made(
    traces: xr.DataArray, kind: str = "linear", layer: int = 2, seed: int = 0, **attrs: Any
) -> xr.Dataset:
    """A probe of random numbers at a layer, with the provenance of `traces`."""
    draw, dim = np.random.default_rng(seed), traces.sizes["dim"]
    weight = (("dim",), draw.normal(size=dim).astype(np.float32))
    numbers: dict[str, Any] = {"weight": weight, "offset": np.float32(0.3)}
    if kind == "attention":
        numbers["query"] = (("dim",), draw.normal(size=dim).astype(np.float32))
        attrs = {"pooling": "attention", **attrs}
    if kind == "mlp":
        numbers["hidden_weight"] = (
            ("unit", "dim"),
            draw.normal(size=(5, dim)).astype(np.float32),
        )
        numbers["hidden_offset"] = (("unit",), draw.normal(size=5).astype(np.float32))
        numbers["weight"] = (("unit",), draw.normal(size=5).astype(np.float32))
    numbers |= {"threshold": np.float64(attrs.pop("threshold", np.nan))}
    probe = xr.Dataset(numbers, coords={"layer": np.int32(layer)})
    probe = probe.assign_attrs({"kind": "probe", "method": kind, "pooling": "mean", **attrs})
    return tk.stamp(probe, {"made_by": "traits.fit", "source": tk.provenance(traces)})


def token_scores(probe: xr.Dataset, residuals: np.ndarray) -> np.ndarray:
    """(…, dim) to (…), in float64."""
    numbers = {str(name): values.values.astype(float) for name, values in probe.items()}
    wide = residuals.astype(float)
    if "hidden_weight" in probe:
        wide = np.maximum(wide @ numbers["hidden_weight"].T + numbers["hidden_offset"], 0)
    return wide @ numbers["weight"] + numbers["offset"]


def pooled(probe: xr.Dataset, residuals: np.ndarray) -> float:
    """The score of one response (token, dim), in float64, by poolings written out here."""
    scores, pooling = token_scores(probe, residuals), probe.attrs["pooling"]
    if callable(pooling):
        return float(pooling(scores))
    if pooling == "attention":
        logits = residuals.astype(float) @ probe["query"].values.astype(float)
        weights = np.exp(logits - logits.max())
        return float(weights @ scores / weights.sum())
    if pooling == "rolling_max(width=3)":
        windows = [scores[n : n + 3].mean() for n in range(max(len(scores) - 2, 1))]
        return float(max(windows))
    if pooling == "ema(decay=0.8, take='max')":
        means = [
            np.average(scores[: n + 1], weights=0.8 ** np.arange(n + 1)[::-1])
            for n in range(len(scores))
        ]
        return float(max(means))
    ways = {
        "mean": np.mean,
        "max": np.max,
        "last": lambda row: row[-1],
        "top_k(k=2)": lambda row: np.mean(np.sort(row)[-2:]),
        "softmax(temperature=1.0)": lambda row: np.average(row, weights=np.exp(row - row.max())),
    }
    return float(ways[pooling](scores))
