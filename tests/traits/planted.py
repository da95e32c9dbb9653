"""Contrast traces with a known direction in them."""

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
    """Noise of sd 1 shared by no one, plus `effect` along the first dim on the positive side.

    The last `massive` dims have a sd of 300. Layer k carries the effect times k / (layers - 1).
    """
    values = generator.normal(size=(2, pairs, layers, dim))
    values[..., dim - massive :] *= 300
    values[0, :, :, 0] += effect * np.linspace(0, 1, layers)
    numbers = np.tile(np.arange(pairs), 2)
    return xr.DataArray(
        values.reshape(-1, layers, dim).astype(np.float32),
        dims=("prompt", "layer", "dim"),
        coords={
            "prompt": [
                f"{trait}/{side}/{n}" for side in ("positive", "negative") for n in range(pairs)
            ],
            "group": ("prompt", [f"{trait}/{n}" for n in numbers]),
            "label": ("prompt", np.repeat([1, 0], pairs)),
            "layer": np.arange(layers),
        },
    )
