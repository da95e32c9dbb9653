"""Contrast traces with a known direction in them, for tests and benchmarks."""

import numpy as np
import xarray as xr


def contrast_traces(
    generator: np.random.Generator,
    pairs: int = 60,
    layers: int = 3,
    dim: int = 24,
    effect: float = 0.0,
    trait: str = "alignment/planted",
    massive: int = 0,
) -> xr.DataArray:
    """Noise of sd 1, plus `effect` along the first dim on the positive side.

    Dims (prompt, layer, dim). The last `massive` dims have sd 300. The effect grows with depth:
    none at the first layer, `effect` at the last.

    >>> contrast_traces(np.random.default_rng(0), pairs=10).sizes["prompt"]
    20
    """
    values = generator.normal(size=(2, pairs, layers, dim))
    values[..., dim - massive :] *= 300
    values[0, :, :, 0] += effect * np.linspace(0, 1, layers)
    numbers = np.tile(np.arange(pairs), 2)
    sides = np.repeat(["positive", "negative"], pairs)
    return xr.DataArray(
        values.reshape(-1, layers, dim).astype(np.float32),
        dims=("prompt", "layer", "dim"),
        coords={
            "prompt": [f"{trait}/{side}/{n}" for side, n in zip(sides, numbers, strict=True)],
            "group": ("prompt", [f"{trait}/{n}" for n in numbers]),
            "label": ("prompt", (sides == "positive").astype(int)),
            "layer": np.arange(layers),
        },
    )
