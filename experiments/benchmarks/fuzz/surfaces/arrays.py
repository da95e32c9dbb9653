"""Saved arrays: netCDF files with damaged bytes, the date kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.fuzz.damage import damaged, flipped
from experiments.benchmarks.fuzz.outcome import Case
from tracekit.storage.provenance import stamp


def _array(rng: np.random.Generator) -> xr.DataArray:
    values = rng.normal(size=(3, 6, 2, 8)).astype(np.float32)
    values[0, 4:] = np.nan
    texts = np.array([[f"token {n}.{m}" for m in range(6)] for n in range(3)])
    coords = {
        "prompt": ["set/1", "set/2", "set/3"],
        "token": np.arange(-2, 4, dtype=np.int32),
        "layer": np.array([3, 7], np.int32),
        "dim": np.arange(8, dtype=np.int32),
        "token_id": (("prompt", "token"), rng.integers(0, 9, (3, 6)).astype(np.int32)),
        "token_text": (("prompt", "token"), texts),
        "group": ("prompt", ["a", "a", "b"]),
    }
    made = xr.DataArray(values, dims=("prompt", "token", "layer", "dim"), coords=coords)
    return stamp(made.rename("residual"), {"model": "fuzz", "weights": "0"})


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One damaged file a case, of every compression."""
    array = _array(rng)
    files = {}
    for codec in ("zlib", "blosc_zstd", "none"):
        path = tk.save(array, place / f"{codec}.nc", compression=codec)
        files[path] = path.read_bytes()
    while True:
        path = list(files)[int(rng.integers(len(files)))]
        whole, dates = files[path], path.stat()
        what, data = ("flip", flipped(whole, rng)) if rng.random() < 0.6 else damaged(whole, rng)
        path.write_bytes(data)
        os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        yield Case(f"{path.name} {what}", lambda p=path: _loaded(p), lambda v: same(v, array))
        path.write_bytes(whole)


def _loaded(path: Path) -> Any:
    found = tk.open(path)
    return found.load() if hasattr(found, "load") else found


def same(found: Any, expected: xr.DataArray) -> bool:
    """Whether values and labels are those, bit for bit; other attributes do not count."""
    if not isinstance(found, xr.DataArray) or set(found.coords) != set(expected.coords):
        return False
    labels = all(
        found[name].dims == expected[name].dims
        and np.array_equal(found[name].values, expected[name].values)
        for name in expected.coords
    )
    values = found.dims == expected.dims and np.array_equal(
        found.values, expected.values, equal_nan=True
    )
    return bool(labels and values and found.attrs["provenance"] == expected.attrs["provenance"])
