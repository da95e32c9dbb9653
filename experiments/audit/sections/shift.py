"""The sections on shifts: how far the organism's weights move a trait, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.estimates import beside_kinds, outcome_strata, point_biserial
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from traits.statistics import cluster_bootstrap, sign_flip

HEADING, R = "shift", "r with exploiting, within bias"


@dataclass(frozen=True)
class Shift:
    """One shift's rows; `tests`: `estimate` and `p_family` (trait), None where undecidable."""

    rows: list[Row]
    tests: xr.Dataset | None = None


def rows(audit: Audit) -> list[Row]:
    """(organism − other weights) of response means on the same ids, by primary trait."""
    if reason := audit.reason_without_held_out:
        return [undecidable(HEADING, "organism − clean", "cosine", reason)]
    return [row for shift in audit.once(shifts).values() for row in shift.rows]


def shifts(audit: Audit) -> dict[str, Shift]:
    """The organism's shift from the clean weights and from every other adapter, by its name.

    On prompts of held-out biases, at the layer that calibration biases choose for detection, or
    the middle of the depth where they choose none. Empty where there is nothing to read.
    """
    if audit.reason_without_held_out:
        return {}
    own = audit.rows["score"] - audit.rows["clean_score"]
    moved = {"clean": own, **{name: own - arm["shift"] for name, arm in audit.replays.items()}}
    layers = xr.zeros_like(audit.rows["trait"], int) + int(audit.layers[audit.place])
    return {
        name: shift_of(audit, HEADING, f"organism − {name}", held_out(audit, array), layers)
        for name, array in moved.items()
    }


def held_out(audit: Audit, array: xr.DataArray) -> xr.DataArray:
    """The rows of `array` (prompt, …) that are of held-out biases, with their `group`."""
    rows = audit.part_rows("held_out")
    group = ("prompt", audit.rows["group"].values[rows])
    return array.isel(prompt=np.flatnonzero(rows)).assign_coords(group=group)


def shift_of(
    audit: Audit, heading: str, what: str, moved: xr.DataArray, layers: xr.DataArray
) -> Shift:
    """The mean of `moved` (prompt, layer, trait) by primary trait, with its interval and p.

    `layers` (trait) says at which layer each is read; p by sign flips over prompts (`group`), over
    the family of traits.
    """
    traits = list(audit.traits)
    if (n := groups(moved["group"].values)) < 2:
        reason = f"{n} prompt"
        return Shift([undecidable(heading, f"{t}: {what}", "cosine", reason, n) for t in traits])
    here = moved.sel(trait=traits).sel(layer=layers.sel(trait=traits)).drop_vars("layer")
    tests = sign_flip(here, generator=audit.generator(f"shift {what}"), family=("trait",))
    intervals = cluster_bootstrap(
        here,
        lambda drawn: drawn.mean("prompt"),
        generator=audit.generator(f"interval {what}"),
        repetitions=audit.settings.null.repetitions,
    )
    rows = []
    for trait in traits:
        at = {"trait": trait}
        measure, p = f"cosine, layer {int(layers.sel(at))}", float(tests["p_family"].sel(at))
        interval, n = intervals.sel(at), tests.attrs["n"]
        rows.append(of_interval(heading, f"{trait}: {what}", measure, interval, n, p))
    return Shift(rows, tests[["estimate", "p_family"]])


def correlation_rows(audit: Audit) -> list[Row]:
    """The correlation of each primary trait with exploiting, within bias, on held-out biases."""
    intervals = audit.once(correlations)
    if intervals is None:
        return [undecidable(HEADING, "each trait", R, audit.reason)]
    n = audit.held_out_prompts
    return [of_interval(HEADING, t, R, intervals.sel(trait=t), n) for t in audit.traits]


def correlations(audit: Audit) -> xr.Dataset | None:
    """Those correlations with both intervals (`estimates.beside_kinds`), by trait, or None."""
    if audit.reason:
        return None
    rows = _labelled(audit.scores().rows(audit.part("held_out")), audit.place)
    generator, repetitions = audit.generator("r"), audit.settings.null.repetitions
    intervals = cluster_bootstrap(
        rows, _by_trait, generator=generator, strata="stratum", repetitions=repetitions
    )
    intervals = beside_kinds(intervals, rows, _by_trait, generator, repetitions)
    return intervals.assign_coords(trait=list(audit.traits)).drop_attrs()


def _labelled(scores: Scores, place: int) -> xr.DataArray:
    columns = {
        "group": scores.group,
        "label": scores.label,
        "bias": np.unique(scores.bias, return_inverse=True)[1],
        "stratum": outcome_strata(scores.label, scores.bias, scores.group),
    }
    coords = {name: ("prompt", values) for name, values in columns.items()}
    return xr.DataArray(scores.values[:, place], dims=("prompt", "trait"), coords=coords)


def _by_trait(drawn: xr.DataArray) -> xr.DataArray:
    label, bias = drawn["label"].values, drawn["bias"].values
    r = [point_biserial(column, label, bias) for column in drawn.values.T]
    return xr.DataArray(r, dims="trait")


SECTION = Section(
    HEADING,
    "On held-out biases, at the layer that calibration biases choose: the shift of the mean "
    "cosine on the same ids.",
    rows,
)
CORRELATIONS = Section(
    HEADING,
    "r is the mean over biases of the correlation of a trait's score with exploiting.",
    correlation_rows,
)
