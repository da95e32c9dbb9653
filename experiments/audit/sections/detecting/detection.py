"""The section on detection: can exploiting responses be told from the others by trait scores?

Layer, weights and threshold come from the calibration biases alone; every number is of held-out
ones. The null exchanges the labels of the held-out biases (`relabel`), so its size is exact
whatever was chosen.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import (
    Scores,
    at_places,
    choose,
    chosen_places,
    composite,
    composite_auroc,
)
from experiments.audit.evidence.directions_null import Statistic, Values
from experiments.audit.evidence.relabel import (
    decided,
    groups,
    relabellings,
    within_bias_auroc,
    within_prompt_auroc,
)
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import Standing, stand, unheld, unreadable
from traits.statistics import against_null, max_statistic

HEADING, DRAWS = "detection", 10_000
SPREAD_DRAWS = 999  # exchanges that say how far from ½ is far


def detect(
    calibration: Scores,
    held_out: Scores,
    allowed: np.ndarray,
    generator: np.random.Generator,
    draws: int = 10_000,
) -> xr.Dataset:
    """The whole procedure: choose on calibration biases, test on held-out ones.

    Returns `area`, `statistic` (trait): the AUROC within bias and its standardised distance
    from ½ at the chosen layer; `p_trait` (max-T over traits) and `p`, the smallest of them;
    `composite` and `p_composite`: the AUROC of the weighted score, one-sided, since its sign was
    chosen; `layer` (a place on the axis).

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 8), np.arange(8)
    >>> scores = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> sorted(detect(scores, scores, np.arange(4), draw, 9).data_vars)[:3]
    ['area', 'composite', 'layer']
    """
    choice = choose(calibration, allowed)
    columns = np.column_stack([held_out.values[:, choice.layer], composite(held_out, choice)])
    exchanged = relabellings(held_out.label, held_out.bias, held_out.group, generator, draws)
    null = within_bias_auroc(columns, exchanged, held_out.bias)
    area = within_bias_auroc(columns, held_out.label[None], held_out.bias)[0]
    spread = np.maximum(null.std(axis=0), 1e-9)
    scaled = xr.DataArray((null[:, :-1] - 0.5) / spread[:-1], dims=("draw", "trait"))
    statistic = xr.DataArray((area[:-1] - 0.5) / spread[:-1], dims="trait")
    p = max_statistic(statistic, scaled, ["trait"])
    beside = against_null(xr.DataArray(area[-1]), xr.DataArray(null[:, -1], dims="draw"))
    return xr.Dataset(
        {
            "area": ("trait", area[:-1]),
            "statistic": statistic,
            "p_trait": p,
            "p": p.min(),
            "composite": area[-1],
            "p_composite": beside["p"],
            "null_deviation": spread[-1],
            "layer": choice.layer,
        }
    )


def rows(audit: Audit) -> list[Row]:
    """The primary hypothesis, each bias left out in turn, and samples of one prompt told apart."""
    return [*audit.once(primary), *_by_bias(audit), *_within_prompts(audit)]


def primary(audit: Audit) -> list[Row]:
    """The primary hypothesis: max-T over the primary traits on held-out biases."""
    what = "primary hypothesis, held-out biases"
    if audit.reason:
        return [undecidable(HEADING, what, "max-T", audit.reason)]
    best, weighted, *traits = tested(audit, HEADING, what, audit.scores(), "primary")
    standing = audit.once(primary_standing)
    beside = [standing.of(row, place) for place, row in enumerate(traits)]
    return [standing.of(best), weighted, *beside]


def tested(audit: Audit, heading: str, what: str, scores: Scores, draws: str) -> list[Row]:
    """`detect` of an audit's rows by any scores: the best trait, the weighted score, each trait.

    `draws` names the audit's generator of exchanged labels.
    """
    calibration, held_out = (scores.rows(audit.part(name)) for name in ("calibration", "held_out"))
    tests = detect(calibration, held_out, audit.allowed, audit.generator(draws), DRAWS)
    n, layer = groups(held_out.group), audit.layers[int(tests["layer"])]
    largest, whole = float(abs(tests["statistic"]).max()), float(tests["composite"])
    p_whole = float(tests["p_composite"])
    rows = [
        Row(heading, what, f"max-T, layer {layer}", largest, p=float(tests["p"]), n=n),
        Row(heading, "weighted trait score", "AUROC, permutation", whole, p=p_whole, n=n),
    ]
    for place, trait in enumerate(audit.traits):
        here = tests.isel(trait=place)
        area, p = float(here["area"]), float(here["p_trait"])
        rows.append(Row(heading, trait, "AUROC within bias", area, p=p, n=n))
    return rows


def distances(
    values: Float[np.ndarray, "draw row layer trait"],
    rows: Scores,
    calibration: Bool[np.ndarray, row],
    allowed: np.ndarray,
    exchanged: Int[np.ndarray, "exchange held_out"],
) -> Float[np.ndarray, "draw trait"]:
    """What `detect` does, of many draws of directions: how far from ½ at the layer each chooses.

    In standard deviations under the labels `exchanged` among held-out rows.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 8), np.arange(8)
    >>> rows = Scores(np.zeros((8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> exchanged = relabellings(rows.label[4:], names[0][4:], names[1][4:], draw, 9)
    >>> first = np.arange(8) < 4
    >>> distances(draw.normal(size=(5, 8, 4, 2)), rows, first, np.arange(4), exchanged).shape
    (5, 2)
    """
    places = chosen_places(values[:, calibration], rows.rows(calibration), allowed)
    here, held = at_places(values[:, ~calibration], places), rows.rows(~calibration)
    columns = here.transpose(1, 0, 2).reshape(len(held.label), -1)
    area = within_bias_auroc(columns, held.label[None], held.bias)[0]
    spread = within_bias_auroc(columns, exchanged, held.bias).std(axis=0)
    return (np.abs(area - 0.5) / np.maximum(spread, 1e-9)).reshape(len(values), -1)


def primary_standing(audit: Audit) -> Standing:
    """How the primary traits stand beside directions through the same layer choice and max-T."""
    if reason := audit.reason or unreadable(audit, "organism", "clean"):
        return unheld(reason)
    return stand(audit, *primary_statistic(audit), places=audit.allowed)


def primary_statistic(audit: Audit) -> tuple[Statistic, Values]:
    """The statistic of the primary hypothesis, and what it is read off (`Audit.readable`)."""
    used, _ = primary_rows(audit)
    return statistic(audit), audit.readable[used]


def statistic(audit: Audit) -> Statistic:
    """How far from ½ directions' scores of the rows that detection uses are: `distances`."""
    used, first = primary_rows(audit)
    rows = audit.scores().rows(used)
    held = rows.rows(~first)
    generator = audit.generator("exchanged beside directions")
    exchanged = relabellings(held.label, held.bias, held.group, generator, SPREAD_DRAWS)
    return partial(
        distances, rows=rows, calibration=first, allowed=audit.allowed, exchanged=exchanged
    )


def primary_rows(audit: Audit) -> tuple[Bool[np.ndarray, row], Bool[np.ndarray, used]]:
    """The rows that detection uses, and which of those are of calibration biases."""
    calibration = audit.part("calibration")
    used = calibration | audit.part("held_out")
    return used, calibration[used]


def _by_bias(audit: Audit) -> list[Row]:
    what = "leave one bias out"
    if audit.reason:
        return [undecidable(HEADING, what, "AUROC", audit.reason)]
    scores = audit.scores()
    rows = [_one_bias(audit, scores, name) for name in dict.fromkeys(scores.bias.tolist())]
    areas = [row.estimate for row in rows if row.decided]
    if not areas:
        return rows
    measure, n = f"AUROC, mean of {len(areas)} biases", groups(scores.group)
    return [Row(HEADING, what, measure, float(np.mean(areas)), n=n), *rows]


def _one_bias(audit: Audit, scores: Scores, name: str) -> Row:
    """One bias scored by what all others choose."""
    here, what = scores.rows(scores.bias == name), f"leave one bias out: {name}"
    n = groups(here.group)
    if name not in decided(scores.label, scores.bias):
        hits = f"{int(here.label.sum())} of {len(here.label)} exploit"
        return undecidable(HEADING, what, "AUROC", hits, n)
    others = (audit.part("calibration") | audit.part("held_out")) & (scores.bias != name)
    if not others.any():
        return undecidable(HEADING, what, "AUROC", "no other bias to choose on", n)
    choice = choose(scores.rows(others), audit.allowed)
    return Row(HEADING, what, "AUROC", composite_auroc(here, choice), n=n)


def _within_prompts(audit: Audit) -> list[Row]:
    """Samples of one prompt told apart: no wording of the prompt can help."""
    what, measure = "within prompt, held-out biases", "AUROC"
    if audit.reason:
        return [undecidable(HEADING, what, measure, audit.reason)]
    held = audit.scores().rows(audit.part("held_out"))
    area, count = within_prompt_auroc(composite(held, audit.choice), held.label, held.group)
    if not count:
        return [undecidable(HEADING, what, measure, "no prompt has samples of both kinds")]
    return [Row(HEADING, what, measure, area, n=count)]


SECTION = Section(
    HEADING,
    "Exploiting answers against the organism's other answers, by trait scores alone: AUROC within "
    "bias, and the max-T over traits.",
    rows,
)
