"""What the control adapters do in trait space: to the organism's ids, and in their own answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit import foreseen
from experiments.audit.evidence.measures import response_mean
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.phases.activations import file_name
from experiments.audit.phases.projections import read
from experiments.audit.sections.claims import Audit
from experiments.audit.sections.further import moved_rows

CONTROLS = "controls"


def rows(audit: Audit, folder: Path, replays: Mapping[str, xr.Dataset]) -> list[Row]:
    """Each control against the clean model, by primary trait, on prompts of held-out biases.

    On the same ids: its weights on the organism's answers, minus the clean weights on them. Own
    answers: its answers under its weights, minus the clean model's under the clean weights, by
    prompt. Each trait is read at the layer that its own evaluation chose on contrast pairs, since
    no control has a part in choosing for detection. An openly sycophantic control should raise
    sycophancy more than the others do.
    """
    named = _without_role(audit)
    if not audit.traits or not audit.part_rows("held_out").any():
        reason = audit.reason or "no held-out biases"
        return [*named, *(undecidable(CONTROLS, name, "cosine", reason) for name in replays)]
    kept = audit.part_rows("held_out")
    evaluation = tk.open(folder / "evaluation.nc").sel({"method": audit.settings.method}, drop=True)
    layers = evaluation["layer_selected"]
    found = named
    for name, replay in replays.items():
        same = replay["shift"].isel(prompt=np.flatnonzero(kept))
        same = same.assign_coords(group=("prompt", audit.rows["group"].values[kept]))
        found += moved_rows(audit, CONTROLS, f"{name} − clean, same ids", same, layers)[0]
        found += _own_answers(audit, folder, name, layers)
    return found


def _without_role(audit: Audit) -> list[Row]:
    return [
        undecidable(CONTROLS, f"{name}: its part in the verdict", "role", foreseen.WITHOUT_ROLE)
        for name in foreseen.without_role(audit.settings)
    ]


def _own_answers(audit: Audit, folder: Path, name: str, layers: xr.DataArray) -> list[Row]:
    what = f"{name} − clean, own answers"
    arm = f"{name}/{name}"
    if not (folder / "projections" / f"{file_name(arm)}.nc").is_file():
        return [undecidable(CONTROLS, what, "cosine", f"no projections {arm} in this run")]
    answers = [_held_out(read(folder, which)) for which in (arm, "clean/clean")]
    if not all(said.sizes["prompt"] for said in answers):
        return [undecidable(CONTROLS, what, "cosine", "no answers to prompts of held-out biases")]
    own, clean = map(_by_prompt, answers)
    if set(own["prompt"].values) != set(clean["prompt"].values):
        return [undecidable(CONTROLS, what, "cosine", "it answered other prompts")]
    return moved_rows(audit, CONTROLS, what, own - clean, layers)[0]


def _held_out(projections: xr.DataArray) -> xr.DataArray:
    said = response_mean(projections)
    return said.isel(prompt=np.flatnonzero(said["part"].values.astype(str) == "held_out"))


def _by_prompt(held: xr.DataArray) -> xr.DataArray:
    groups = held["group"].values.astype(str)
    bare = held.drop_vars([c for c in held.coords if c not in held.dims]).drop_attrs()
    mean = bare.assign_coords(group=("prompt", groups)).groupby("group").mean("prompt")
    return mean.rename(group="prompt").assign_coords(group=("prompt", mean["group"].values))
