"""A finished run's arrays with extreme values: a table and a page all the same, without a NaN."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.phases import analysis
from experiments.benchmarks.audits.audit_matrix import unfit
from experiments.benchmarks.fuzz.damage import damaged
from experiments.benchmarks.fuzz.outcome import Case
from tests.support.oracles.planted_run import build

_KINDS = ("alike", "one NaN", "infinite", "huge", "zero", "few prompts", "bytes", "gone")


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One run folder a case, with one of its arrays changed."""
    settings = build(place / "whole", effect=1.0)
    names = sorted(p.relative_to(place / "whole") for p in (place / "whole").rglob("*.nc"))
    number = 0
    while True:
        number += 1
        folder = place / f"run{number}"
        shutil.copytree(place / "whole", folder)
        path = folder / names[int(rng.integers(len(names)))]
        kind = str(rng.choice(_KINDS))
        _change(path, kind, rng)
        yield Case(
            f"{path.relative_to(folder)} {kind}",
            lambda f=folder: _analysed(f, settings),
            lambda v, f=folder: not unfit(f),
            seconds=120,
        )
        shutil.rmtree(folder)


def _analysed(folder: Path, settings: Any) -> Any:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return analysis.run(folder, settings)


def _change(path: Path, kind: str, rng: np.random.Generator) -> None:
    if kind == "gone":
        path.unlink()
        return
    if kind == "bytes":
        path.write_bytes(damaged(path.read_bytes(), rng)[1])
        return
    whole = tk.open(path).load()
    if kind == "few prompts" and "prompt" in whole.dims:
        whole = whole.isel(prompt=slice(0, int(rng.integers(0, 3))))
    arrays = [whole] if isinstance(whole, xr.DataArray) else whole.data_vars.values()
    for array in arrays:
        if array.dtype.kind == "f" and array.ndim and array.size:
            _make_extreme(array.values, kind, rng)
    path.unlink()
    tk.save(whole, path)


def _make_extreme(values: np.ndarray, kind: str, rng: np.random.Generator) -> None:
    if kind == "alike":
        values[...] = 0.25
    elif kind in ("one NaN", "infinite"):
        values[int(rng.integers(len(values)))] = np.nan if kind == "one NaN" else np.inf
    elif kind in ("huge", "zero"):
        values *= 1e30 if kind == "huge" else 0
