"""Vector files: safetensors, GGUF, `.pt`, written here and elsewhere, with bytes out of place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from experiments.benchmarks.fuzz.damage import damaged
from experiments.benchmarks.fuzz.outcome import Case
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files import (
    read_gguf,
    read_pt,
    read_safetensors,
    write_gguf,
    write_safetensors,
)


def _vectors() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    coords = {
        "trait": ["alignment/honesty", "alignment/sycophancy"],
        "layer": np.array([1, 2, 3], np.int32),
        "dim": np.arange(16, dtype=np.int32),
    }
    made = xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords, name="vector")
    return stamp(made, {"model": "fuzz", "weights": "0", "depth": 4})


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One damaged file a case; ours carry a checksum, a `.pt` has that of its archive."""
    vectors = _vectors()
    one = vectors.isel(trait=0, drop=True)
    table = {int(n): torch.tensor(one.sel(layer=n).values) for n in one.layer.values}
    torch.save(table, place / "by_layer.pt")
    write_gguf(one, place / "v.gguf", "llama")
    write_safetensors(vectors, place / "v.safetensors")
    readers: dict[str, tuple[Callable[..., Any], xr.DataArray]] = {
        "v.safetensors": (read_safetensors, vectors),
        "v.gguf": (read_gguf, one),
        "by_layer.pt": (read_pt, one),
    }
    originals = {name: (place / name).read_bytes() for name in readers}
    while True:
        name = str(rng.choice(list(readers)))
        read, expected = readers[name]
        what, data = damaged(originals[name], rng)
        path = place / f"damaged-{name}"
        path.write_bytes(data)
        yield Case(
            f"{name} {what}",
            lambda read=read, path=path: read(path),
            lambda v, expected=expected: _right(v, expected),
            checked=not name.endswith(".pt"),
        )


def _right(found: Any, expected: xr.DataArray) -> bool:
    same = isinstance(found, xr.DataArray) and found.sizes == expected.sizes
    return (
        same
        and bool((found.transpose(*expected.dims).values == expected.values).all())
        and all(
            found[dim].values.tolist() == expected[dim].values.tolist() for dim in expected.dims
        )
    )
