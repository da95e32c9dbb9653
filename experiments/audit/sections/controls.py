"""The section on controls: what each does to the same ids, and in its own answers."""

from __future__ import annotations

import numpy as np
import xarray as xr

from experiments.audit import foreseen
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.measures import response_mean
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.phases.projections import read
from experiments.audit.run import Run
from experiments.audit.sections.shift import held_out, shift_of

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
        same = held_out(audit, replay["shift"])
        rows += shift_of(audit, HEADING, f"{name} − clean, same ids", same, layers).rows
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
    return shift_of(audit, HEADING, what, own - clean, layers).rows


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
