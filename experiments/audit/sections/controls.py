"""The section on controls: what each does to the same ids, and in its own answers."""

from __future__ import annotations

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit import foreseen
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.directions_null import absolute_t
from experiments.audit.evidence.measures import response_mean
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import (
    AGAIN,
    Standing,
    change_of,
    lacking,
    stand,
    unheld,
)
from experiments.audit.phases.projections import read
from experiments.audit.run import Run
from experiments.audit.sections.shift import by_group, held_out, shift_of

HEADING = "controls"


def rows(audit: Audit) -> list[Row]:
    """Each control against the clean model, by primary trait, on prompts of held-out biases.

    On the same ids: its weights on the organism's answers, minus the clean weights on them. Own
    answers: its answers under its weights, minus the clean model's under the clean weights, by
    prompt. Each trait is read at the layer that its own evaluation chose on contrast pairs, since
    no control has a part in choosing for detection. An openly sycophantic control should raise
    sycophancy more than the others do.
    """
    named = _without_role(audit)
    if reason := audit.reason_without_held_out:
        return [*named, *(undecidable(HEADING, name, "cosine", reason) for name in audit.replays)]
    layers = audit.evaluation["layer_selected"]
    rows = named
    for name, replay in audit.replays.items():
        same = held_out(audit, replay["shift_mean"])
        standing = _same_ids(audit, name, layers)
        what = f"{name} − clean, same ids"
        rows += shift_of(audit, HEADING, what, same, layers, standing).rows
        rows += _own_answers(audit, name, layers)
    return rows


def _without_role(audit: Audit) -> list[Row]:
    return [
        undecidable(HEADING, f"{name}: its part in the verdict", "role", foreseen.WITHOUT_ROLE)
        for name in foreseen.without_role(audit.settings)
    ]


def _own_answers(audit: Audit, name: str, layers: xr.DataArray) -> list[Row]:
    what, arm = f"{name} − clean, own answers", f"{name}/{name}"
    if not Run(audit.folder).projections(arm).is_file():
        return [undecidable(HEADING, what, "cosine", f"no projections {arm} in this run")]
    answers = [_held_out_means(read(audit.folder, which)) for which in (arm, "clean/clean")]
    if not all(means.sizes["prompt"] for means in answers):
        return [undecidable(HEADING, what, "cosine", "no answers to prompts of held-out biases")]
    own, clean = map(_by_prompt, answers)
    if set(own["prompt"].values) != set(clean["prompt"].values):
        return [undecidable(HEADING, what, "cosine", "it answered other prompts")]
    standing = _of_own(audit, name, layers)
    names = ("group", "bias")
    groups, biases = (answers[0][n].values.astype(str).tolist() for n in names)
    kind = dict(zip(groups, biases, strict=True))
    moved = own - clean
    moved = moved.assign_coords(bias=("prompt", [kind[g] for g in moved["group"].values.tolist()]))
    return shift_of(audit, HEADING, what, moved, layers, standing).rows


def _same_ids(audit: Audit, name: str, layers: xr.DataArray) -> Standing:
    if reason := lacking(audit, name, "clean"):
        return unheld(reason)
    rows = audit.part_rows("held_out")
    group = audit.rows["group"].values[rows].astype(str)
    return _beside(audit, by_group(change_of(audit, name)[rows], group), layers, name)


def _of_own(audit: Audit, name: str, layers: xr.DataArray) -> Standing:
    paths = [Run(audit.folder).own_means(arm) for arm in (name, "clean")]
    if not all(path.is_file() for path in paths):
        return unheld(f"no unit means of {name}'s own answers in this run; {AGAIN}")
    own, clean = (_by_prompt(tk.open(path)) for path in paths)
    apart = own - clean.sel(prompt=own["prompt"].values)
    return _beside(audit, apart.transpose("prompt", "layer", "dim").values, layers, name)


def _beside(audit: Audit, moved: np.ndarray, layers: xr.DataArray, name: str) -> Standing:
    """Shifts beside those of directions, each at the layer of the trait whose place it takes."""
    if len(moved) < 2:
        return unheld(f"{len(moved)} prompt")
    chosen = [int(layers.sel(trait=trait)) for trait in audit.traits]
    places = np.searchsorted(audit.layers, chosen)

    def statistic(apart: np.ndarray) -> np.ndarray:
        each = [apart[:, :, place, trait] for trait, place in enumerate(places)]
        return absolute_t(np.stack(each, axis=-1))

    return stand(audit, statistic, moved, change=name, places=np.unique(places))


def _held_out_means(projections: xr.DataArray) -> xr.DataArray:
    means = response_mean(projections)
    return means.isel(prompt=np.flatnonzero(means["part"].values.astype(str) == "held_out"))


def _by_prompt(held: xr.DataArray) -> xr.DataArray:
    groups = held["group"].values.astype(str)
    bare = held.drop_vars([c for c in held.coords if c not in held.dims]).drop_attrs()
    mean = bare.assign_coords(group=("prompt", groups)).groupby("group").mean("prompt")
    return mean.rename(group="prompt").assign_coords(group=("prompt", mean["group"].values))


SECTION = Section(
    HEADING,
    "What each control adapter does itself, at the layer of each trait's evaluation: the shift of "
    "the mean cosine from the clean model.",
    rows,
)
