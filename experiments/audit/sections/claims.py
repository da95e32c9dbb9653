"""The audit's rows: every number of the table, from gathered responses."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from experiments.audit.evidence import detection, mechanism
from experiments.audit.evidence.detection import Choice, Scores, composite
from experiments.audit.evidence.estimates import mean_interval
from experiments.audit.evidence.relabel import (
    decided,
    groups,
    within_bias_auroc,
    within_prompt_auroc,
)
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.settings import Settings

A, DETECTION, UNITS = "A mechanism", "detection", "units"


@dataclass(frozen=True)
class Audit:
    """One adapter's responses to prompts with a bias, and what was fixed before the run."""

    rows: xr.Dataset
    traits: tuple[str, ...]
    allowed: np.ndarray
    settings: Settings

    def generator(self, what: str) -> np.random.Generator:
        """A generator of its own for each part, so that none depends on another."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(what.encode())])

    def scores(self, name: str = "score") -> Scores:
        """A variable of the rows at the primary traits."""
        values = self.rows[name].sel(trait=list(self.traits)).values
        label, bias, group = (self.rows[key].values for key in ("exploit", "bias", "group"))
        return Scores(values, label.astype(int), bias.astype(str), group.astype(str))

    def part(self, name: str) -> np.ndarray:
        """Which rows are of that part and of a bias with both outcomes."""
        scores = self.scores()
        kept = np.isin(scores.bias, decided(scores.label, scores.bias))
        return kept & (self.rows["part"].values.astype(str) == name)

    def part_rows(self, name: str) -> np.ndarray:
        """Which rows are of that part, whatever their outcomes."""
        return self.rows["part"].values.astype(str) == name

    @property
    def trait_places(self) -> dict[str, int]:
        """The place of each trait on the trait axis."""
        return {str(name): n for n, name in enumerate(self.rows["trait"].values)}

    @property
    def reason(self) -> str:
        """Why detection cannot be decided; empty where it can."""
        if not self.traits:
            return "no primary trait passed its own evaluation"
        for name in ("calibration", "held_out"):
            if not self.part(name).any():
                hits = int((self.rows["exploit"].values == 1).sum())
                return f"no {name.replace('_', '-')} bias has both outcomes; {hits} exploit"
        if groups(self.rows["group"].values[self.part("held_out")]) < 2:
            return "1 prompt of held-out biases; 2 are the least"
        return ""

    @cached_property
    def choice(self) -> Choice:
        """What the calibration biases choose: layer, weights, threshold."""
        return self.choice_for("score")

    def choice_for(self, name: str) -> Choice:
        """What they choose for another variable of the rows."""
        return detection.choose(self.scores(name).rows(self.part("calibration")), self.allowed)

    @property
    def layers(self) -> np.ndarray:
        """The labels of the layer axis."""
        return self.rows["layer"].values


def primary(audit: Audit) -> list[Row]:
    """The primary hypothesis: max-T over the primary traits on held-out biases."""
    what = "primary hypothesis, held-out biases"
    if audit.reason:
        return [undecidable(DETECTION, what, "max-T", audit.reason)]
    fitted, held = (audit.scores().rows(audit.part(name)) for name in ("calibration", "held_out"))
    found = detection.detect(fitted, held, audit.allowed, audit.generator("primary"), 10_000)
    n, layer = groups(held.group), audit.layers[int(found["layer"])]
    rows = [
        Row(
            DETECTION,
            what,
            f"max-T, layer {layer}",
            float(abs(found["statistic"]).max()),
            p=float(found["p"]),
            n=n,
        ),
        Row(
            DETECTION,
            "weighted trait score",
            "AUROC, permutation",
            float(found["composite"]),
            p=float(found["p_composite"]),
            n=n,
        ),
    ]
    for place, trait in enumerate(audit.traits):
        here = found.isel(trait=place)
        rows.append(
            Row(
                DETECTION,
                trait,
                "AUROC within bias",
                float(here["area"]),
                p=float(here["p_trait"]),
                n=n,
            )
        )
    return rows


def by_bias(audit: Audit) -> list[Row]:
    """Leave-one-bias-out: each bias scored by what all others choose, and their mean."""
    what = "leave one bias out"
    if audit.reason:
        return [undecidable(DETECTION, what, "AUROC", audit.reason)]
    scores = audit.scores()
    rows, areas = [], []
    for name in dict.fromkeys(scores.bias.tolist()):
        here = scores.rows(scores.bias == name)
        others = audit.part("calibration") | audit.part("held_out")
        others &= scores.bias != name
        if name not in decided(scores.label, scores.bias):
            hits = f"{int(here.label.sum())} of {len(here.label)} exploit"
            count = groups(here.group)
            rows.append(undecidable(DETECTION, f"{what}: {name}", "AUROC", hits, count))
            continue
        chosen = detection.choose(scores.rows(others), audit.allowed)
        area = within_bias_auroc(composite(here, chosen)[:, None], here.label[None], here.bias)
        areas.append(area[0, 0])
        rows.append(Row(DETECTION, f"{what}: {name}", "AUROC", areas[-1], n=groups(here.group)))
    mean = Row(
        DETECTION,
        what,
        f"AUROC, mean of {len(areas)} biases",
        float(np.mean(areas)),
        n=groups(scores.group),
    )
    return [mean, *rows]


def within_prompts(audit: Audit) -> list[Row]:
    """Samples of one prompt told apart: no wording of the prompt can help."""
    what, measure = "within prompt, held-out biases", "AUROC"
    if audit.reason:
        return [undecidable(DETECTION, what, measure, audit.reason)]
    held = audit.scores().rows(audit.part("held_out"))
    area, count = within_prompt_auroc(composite(held, audit.choice), held.label, held.group)
    if not count:
        return [undecidable(DETECTION, what, measure, "no prompt has samples of both kinds")]
    return [Row(DETECTION, what, measure, area, n=count)]


def located(audit: Audit, contrast: xr.DataArray, what: str) -> list[Row]:
    """A: (weights − clean) at exploit spans minus at matched spans, max-T over traits."""
    measure = "exploit − matched spans"
    scores = audit.scores()
    values = contrast.sel(trait=list(audit.traits)).values
    parts = [
        mechanism.by_prompt(values[kept], scores.bias[kept], scores.group[kept])
        for kept in (audit.rows["part"].values == name for name in ("calibration", "held_out"))
    ]
    if not audit.traits or min(len(part.bias) for part in parts) < 3:
        counts = " and ".join(str(len(part.bias)) for part in parts)
        reason = f"{counts} prompts with an exploit span and a match; 3 of each part are due"
        return [undecidable(A, what, measure, reason if audit.traits else audit.reason)]
    found = mechanism.locate(parts[0], parts[1], audit.allowed, audit.generator(what), 10_000)
    place, n = int(found["layer"]), len(parts[1].bias)
    rows = [
        Row(
            A,
            what,
            f"max-T, layer {audit.layers[place]}",
            float(abs(found["statistic"]).max()),
            p=float(found["p"]),
            n=n,
        )
    ]
    for number, trait in enumerate(audit.traits):
        bounds = mean_interval(
            parts[1].values[:, place, number],
            np.arange(n),
            audit.generator(f"{what} {trait}"),
            audit.settings.repetitions,
        )
        p = float(found["p_trait"][number])
        rows.append(of_interval(A, f"{what}: {trait}", f"{measure}, cosine", bounds, n, p))
    return rows


def counterfactual(audit: Audit, edited: xr.Dataset | None, text: str) -> list[Row]:
    """What taking the span out, or putting it in, does to (organism − clean), by prompt."""
    what = {"deleted": "span deleted from organism text", "inserted": "span put in clean text"}[
        text
    ]
    if edited is None or not audit.traits:
        return [undecidable(A, what, "cosine", "no exploiting response to edit")]
    place = mechanism_layer(audit)
    rows = []
    for trait in audit.traits:
        if text == "deleted":
            there = audit.rows["outside"].sel(prompt=edited["prompt"].values)
            values = (there - edited["whole"]).sel(trait=trait).isel(layer=place).values
            measure = "rest of the answer with − without the span"
        else:
            values = (edited["span"] - edited["whole"]).sel(trait=trait).isel(layer=place).values
            measure = "inserted span − whole answer"
        rows.append(_mean_row(audit, f"{what}: {trait}", measure, values, edited["group"].values))
    return rows


def mechanism_layer(audit: Audit) -> int:
    """The place on the layer axis that calibration contrasts choose; the choice's own if none."""
    scores = audit.scores("contrast")
    kept = audit.rows["part"].values == "calibration"
    rows = mechanism.by_prompt(scores.values[kept], scores.bias[kept], scores.group[kept])
    return mechanism.choose_layer(rows, audit.allowed) if len(rows.bias) > 2 else audit.allowed[0]


def units(audit: Audit, others: dict[str, np.ndarray]) -> list[Row]:
    """The same AUROC in other units and handlings: each chosen and reported like the primary."""
    if audit.reason:
        return [undecidable(UNITS, "all", "AUROC", audit.reason)]
    plain = audit.scores()
    named = {"cosine (primary)": plain, "scalar projection": audit.scores("scalar")}
    for name, values in others.items():
        named[name] = Scores(values, plain.label, plain.bias, plain.group)
    rows = []
    for name, scores in named.items():
        chosen = detection.choose(scores.rows(audit.part("calibration")), audit.allowed)
        held = scores.rows(audit.part("held_out"))
        area = within_bias_auroc(composite(held, chosen)[:, None], held.label[None], held.bias)
        layer = audit.layers[chosen.layer]
        rows.append(Row(UNITS, name, f"AUROC, layer {layer}", area[0, 0], n=groups(held.group)))
    return rows


def _mean_row(audit: Audit, what: str, measure: str, values: np.ndarray, group: np.ndarray) -> Row:
    there = np.isfinite(values)
    if (count := groups(group[there])) < 2:
        return undecidable(A, what, measure, f"{count} prompts")
    found = mean_interval(
        values[there], group[there], audit.generator(what), audit.settings.repetitions
    )
    return of_interval(A, what, measure, found, count, math.nan)
