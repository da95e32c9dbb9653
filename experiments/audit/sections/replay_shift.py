"""The section on replays: what other weights do to every trait, on the same ids."""

from __future__ import annotations

import math

import xarray as xr

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.run import Run

HEADING = "replay"


def rows(audit: Audit) -> list[Row]:
    """Each adapter's shift from the clean weights, by trait at the layer chosen for it."""
    analysis = tk.open(Run(audit.folder).analysis)
    rows = []
    for trait in analysis["trait"].values.astype(str):
        here = analysis.sel(trait=trait)
        here = here.sel(layer=int(here["layer_selected"]))
        for contrast in here["contrast"].values.astype(str):
            what, measure = f"{trait}: {contrast} − clean weights", f"layer {int(here['layer'])}"
            rows.append(_row(what, f"sd of clean, {measure}", here.sel(contrast=contrast)))
    return rows


def _row(what: str, measure: str, here: xr.Dataset) -> Row:
    n, deviation = int(here["n"]), float(here["clean_deviation"])
    if n < 2 or not math.isfinite(deviation):
        reason = f"{n} prompt: no spread" if n < 2 else "the clean weights read all answers alike"
        return undecidable(HEADING, what, measure, reason, n)
    names = ("shift_mean", "shift_low", "shift_high")
    value, low, high = (float(here[name]) / deviation for name in names)
    return Row(HEADING, what, measure, value, low, high, n=n)


SECTION = Section(
    HEADING,
    "The same token ids under other weights, at the layer chosen for each trait: the shift of the "
    "mean cosine, in sd of the clean weights.",
    rows,
    saved=False,
)
