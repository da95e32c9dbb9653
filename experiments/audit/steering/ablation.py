"""Exploitation against strength, for every direction and kind of edit, with the guards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.labels import Labeller
from experiments.audit.steering import outcomes
from experiments.audit.steering.dose_settings import Steering
from tracekit.passes.generating.strength import sweep
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp

KINDS = ("add", "project out", "clamp")
UNEDITED = "unedited"


@dataclass(frozen=True)
class Bench:
    """Everything that a configuration is tried on.

    `bounds` (direction) is where `clamp` caps the projection; `norm` the mean residual norm at
    the layer, the unit of `multiples`; `transfer` whether the vectors are of other weights;
    `unedited` what the organism says by itself to `asked`.
    """

    model: Any
    organism: str
    asked: xr.Dataset
    right: xr.Dataset
    wrong: xr.Dataset
    norm: float
    bounds: xr.DataArray
    transfer: bool
    steering: Steering
    unedited: xr.Dataset
    labeller: Labeller | None = None


def measured(bench: Bench, directions: xr.DataArray, folder: Path) -> list[Path]:
    """One file a direction and kind of edit, with each response's measures; resumes.

    Each has `exploit`, `nats`, `repetition`, `length` and `response` over (edit, prompt),
    `accuracy` (edit, question) and the `seconds` (edit) that it took, with the coordinates
    `direction`, `kind` and `multiple` (edit), which is 0 for edits without a strength. The random
    arm is a null of what is said under the mildest multiple below 0: its `accuracy` is NaN, and
    so are its `nats` beyond the first prompts. It comes last, one kind after another.
    """
    null = directions["arm"].values == "random"
    named, random = (directions["direction"].values[rows].tolist() for rows in (~null, null))
    jobs = [(name, kind) for name in named for kind in KINDS]
    jobs += [(name, kind) for kind in KINDS for name in random]
    plan = [("organism", UNEDITED), ("clean", UNEDITED), *jobs]
    written = []
    for number, (name, kind) in enumerate(Bar(plan, unit="edit", desc="steer")):
        path = folder / f"{number:04d}.nc"
        written.append(path)
        if not path.is_file():
            vector = None if kind == UNEDITED else directions.sel(direction=name)
            start = time.monotonic()
            edits = _tried(bench, str(name), kind, vector)
            each = (time.monotonic() - start) / edits.sizes["edit"]
            seconds = ("edit", np.full(edits.sizes["edit"], each))
            tk.save(edits.assign(seconds=seconds), path)
    return written


def edited(bench: Bench, kind: str, vector: xr.DataArray, coefficient: xr.DataArray | None) -> Any:
    """The organism with one edit: `add` at the vector's layer from the last prompt token on,
    `clamp` likewise, `project out` at every layer and token."""
    if kind == "add":
        assert coefficient is not None
        return tk.steer(bench.model, vector, coefficient=coefficient, transfer=bench.transfer)
    if kind == "clamp":
        high = float(bench.bounds.sel(direction=vector["direction"].item()))
        return tk.clamp(bench.model, vector, high=high, transfer=bench.transfer)
    everywhere = range(len(bench.model.layers))
    return tk.ablate(bench.model, vector, layers=everywhere, tokens="all", transfer=bench.transfer)


def _tried(bench: Bench, name: str, kind: str, vector: xr.DataArray | None) -> xr.Dataset:
    random = vector is not None and vector["arm"].item() == "random"
    multiples = _multiples(bench.steering, kind, random)
    adapter = None if name == "clean" and vector is None else bench.organism
    with tk.adapter(bench.model, adapter):
        runs = _said(bench, name, kind, vector, multiples)
        known = None if random else _known(bench, kind, vector, multiples)
    with tk.adapter(bench.model, None):
        judged = outcomes.answers(
            bench.model, runs, _guarded(bench, multiples, random), bench.labeller
        )
    edits = _by_edit(judged, multiples, bench.asked)
    shape = (len(multiples), bench.right.sizes["prompt"])
    edits["accuracy"] = xr.DataArray(
        np.full(shape, np.nan, np.float32) if known is None else known, dims=("edit", "question")
    )
    edits["response"] = (("edit", "prompt"), runs.response.values.reshape(len(multiples), -1))
    labels = {"direction": [name] * len(multiples), "kind": [kind] * len(multiples)}
    edits = edits.assign_coords({key: ("edit", values) for key, values in labels.items()})
    edits = edits.assign_coords(multiple=("edit", list(multiples)))
    return stamp(edits, {"made_by": __name__, "runs": read(runs)})


def said(model: Any, asked: xr.Dataset, steering: Steering) -> xr.Dataset:
    """What a model says to `asked`, greedily, under the experiment's settings."""
    return tk.generate(
        model,
        asked,
        max_new_tokens=steering.max_new_tokens,
        token_budget=steering.token_budget,
        progress=False,
    )


def _said(
    bench: Bench, name: str, kind: str, vector: xr.DataArray | None, multiples: Sequence[float]
) -> xr.Dataset:
    if vector is None and name == "organism":
        return bench.unedited
    asked = _swept(bench, bench.asked, multiples)
    return said(_on(bench, kind, vector, asked), asked, bench.steering)


def _known(
    bench: Bench, kind: str, vector: xr.DataArray | None, multiples: Sequence[float]
) -> np.ndarray:
    right, wrong = (_swept(bench, rows, multiples) for rows in (bench.right, bench.wrong))
    known = outcomes.correct(_on(bench, kind, vector, right), right, wrong)
    return known.values.reshape(len(multiples), -1).astype(np.float32)


def _multiples(steering: Steering, kind: str, random: bool) -> tuple[float, ...]:
    if kind != "add":
        return (0.0,)
    mildest = max(multiple for multiple in steering.multiples if multiple < 0)
    return (mildest,) if random else steering.multiples


def _guarded(bench: Bench, multiples: Sequence[float], random: bool) -> np.ndarray | None:
    if not random:
        return None
    count = bench.asked.sizes["prompt"]
    first = np.arange(min(bench.steering.guarded, count))
    return (count * np.arange(len(multiples))[:, None] + first).ravel()


def _swept(bench: Bench, rows: xr.Dataset, multiples: Sequence[float]) -> xr.Dataset:
    return sweep(rows, [multiple * bench.norm for multiple in multiples])


def _on(bench: Bench, kind: str, vector: xr.DataArray | None, rows: xr.Dataset) -> Any:
    return bench.model if vector is None else edited(bench, kind, vector, rows.coefficient)


def _by_edit(judged: xr.Dataset, multiples: Sequence[float], asked: xr.Dataset) -> xr.Dataset:
    coords = {n: c for n, c in asked.coords.items() if n in ("prompt", "group", "bias", "split")}
    values = {
        name: (("edit", "prompt"), judged[name].values.reshape(len(multiples), -1))
        for name in judged.data_vars
    }
    return xr.Dataset(values, coords=coords)


def together(paths: Sequence[Path]) -> xr.Dataset:
    """All files of `measured` as one Dataset over (edit, prompt), one edit a row.

    >>> row = tk.stamp(xr.Dataset({"exploit": (("edit", "prompt"), [[1, 0]])}), {})
    >>> dict(together([tk.save(row, "none.nc"), tk.save(row, "ablated.nc")]).sizes)
    {'edit': 2, 'prompt': 2}
    """
    parts = [tk.open(path) for path in paths]
    return xr.concat(parts, "edit", combine_attrs="override", coords="minimal", compat="override")
