"""The sections on shifts: how far the organism's weights move a trait, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, at_places, chosen_places
from experiments.audit.evidence.directions_null import absolute_t
from experiments.audit.evidence.estimates import beside_kinds, outcome_strata, point_biserial
from experiments.audit.evidence.measures import means_of
from experiments.audit.evidence.relabel import groups, two_sided
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import (
    Standing,
    change_of,
    lacking,
    stand,
    unheld,
    unreadable,
)
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
    own = means_of(audit.rows) - means_of(audit.rows, "clean_")
    moved = {"clean": own, **{name: own - arm["shift_mean"] for name, arm in audit.replays.items()}}
    layers = xr.zeros_like(audit.rows["trait"], int) + int(audit.layers[audit.place])
    return {
        name: shift_of(
            audit,
            HEADING,
            f"organism − {name}",
            held_out(audit, array),
            layers,
            _standing(audit, name),
        )
        for name, array in moved.items()
    }


def by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The mean of the rows of each prompt, the unit of a test.

    >>> by_group(np.array([[1.0], [3.0], [9.0]]), np.array(["a", "a", "b"])).tolist()
    [[2.0], [9.0]]
    """
    return np.stack([values[group == name].mean(axis=0) for name in dict.fromkeys(group.tolist())])


def _standing(audit: Audit, other: str) -> Standing:
    """Shifts beside those of directions, at the layer that each chooses as the traits do."""
    if reason := lacking(audit, "organism", "clean", other):
        return unheld(reason)
    rows = audit.part_rows("held_out")
    moved = change_of(audit, "organism", other)[rows]
    moved = by_group(moved, audit.rows["group"].values[rows].astype(str))
    if len(moved) < 2:
        return unheld(f"{len(moved)} prompt")
    if audit.reason:
        at = audit.place
        return stand(audit, lambda apart: absolute_t(apart[:, :, at]), moved, places=[at])
    first = audit.part("calibration")
    calibration = audit.scores().rows(first)

    def statistic(apart: np.ndarray, own: np.ndarray) -> np.ndarray:
        return absolute_t(at_places(apart, chosen_places(own, calibration, audit.allowed)))

    if reason := unreadable(audit):
        return unheld(reason)
    return stand(audit, statistic, moved, audit.readable[first], places=audit.allowed)


def held_out(audit: Audit, array: xr.DataArray) -> xr.DataArray:
    """The rows of `array` (prompt, …) that are of held-out biases, with `group` and `bias`."""
    rows = audit.part_rows("held_out")
    labels = {name: ("prompt", audit.rows[name].values[rows]) for name in ("group", "bias")}
    return array.isel(prompt=np.flatnonzero(rows)).assign_coords(labels)


def shift_of(
    audit: Audit,
    heading: str,
    what: str,
    moved: xr.DataArray,
    layers: xr.DataArray,
    standing: Standing,
) -> Shift:
    """The mean of `moved` (prompt, layer, trait) by primary trait, with both intervals and p.

    `layers` (trait) says at which layer each is read; p by sign flips over prompts (`group`), over
    the family of traits; other kinds of prompt are other values of `bias`. `standing` is that of
    the traits beside directions.
    """
    traits = list(audit.traits)
    if (n := groups(moved["group"].values)) < 2:
        reason = f"{n} prompt"
        return Shift([undecidable(heading, f"{t}: {what}", "cosine", reason, n) for t in traits])
    here = moved.sel(trait=traits).sel(layer=layers.sel(trait=traits)).drop_vars("layer")
    tests = sign_flip(here, generator=audit.generator(f"shift {what}"), family=("trait",))
    drawing: dict[str, Any] = {
        "generator": audit.generator(f"interval {what}"),
        "repetitions": audit.settings.null.repetitions,
    }
    intervals = cluster_bootstrap(here, "mean", **drawing)
    intervals = beside_kinds(intervals, here, "mean", **drawing)
    rows = []
    for place, trait in enumerate(traits):
        at = {"trait": trait}
        measure, p = f"cosine, layer {int(layers.sel(at))}", float(tests["p_family"].sel(at))
        interval, n = intervals.sel(at), tests.attrs["n"]
        row = of_interval(heading, f"{trait}: {what}", measure, interval, n, p)
        rows.append(standing.of(row, place))
    return Shift(rows, tests[["estimate", "p_family"]])


def correlation_rows(audit: Audit) -> list[Row]:
    """The correlation of each primary trait with exploiting, within bias, on held-out biases."""
    intervals = audit.once(correlations)
    if intervals is None:
        return [undecidable(HEADING, "each trait", R, audit.reason)]
    n, standing = audit.held_out_prompts, audit.once(correlation_standing)
    rows = [of_interval(HEADING, t, R, intervals.sel(trait=t), n) for t in audit.traits]
    return [standing.of(row, place) for place, row in enumerate(rows)]


def correlation_standing(audit: Audit) -> Standing:
    """The correlations beside those of directions, at the layer that each chooses."""
    if reason := audit.reason or unreadable(audit, "organism", "clean"):
        return unheld(reason)
    first, rows = audit.part("calibration"), audit.part("held_out")
    calibration, held = audit.scores().rows(first), audit.scores().rows(rows)

    def statistic(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        places = chosen_places(own, calibration, audit.allowed)
        return within_bias_r(at_places(others, places), held.label, held.bias)

    both = audit.readable[first], audit.readable[rows]
    return stand(audit, statistic, *both, places=audit.allowed)


def within_bias_r(
    values: Float[np.ndarray, "draw row trait"], label: np.ndarray, bias: np.ndarray
) -> Float[np.ndarray, "draw trait"]:
    """The mean over biases of the correlation of every draw's traits with the label.

    What `estimates.point_biserial` is, of many draws.

    >>> values = np.array([1.0, 0.0, 5.0, 4.0])[None, :, None]
    >>> label, bias = np.array([1, 0, 1, 0]), np.array(["a", "a", "b", "b"])
    >>> within_bias_r(values, label, bias).round(6).item()
    1.0
    """
    each = []
    for name in two_sided(label, bias):
        here, hits = values[:, bias == name], label[bias == name].astype(float)
        here, hits = here - here.mean(axis=1, keepdims=True), hits - hits.mean()
        size = np.sqrt((here**2).sum(axis=1) * (hits @ hits))
        each.append(np.einsum("drt,r->dt", here, hits) / np.maximum(size, 1e-12))
    return np.mean(each, axis=0)


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
