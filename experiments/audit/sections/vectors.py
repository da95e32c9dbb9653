"""The section on vectors: how each does on contrast pairs that it has not seen."""

from __future__ import annotations

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.row import Row
from experiments.audit.evidence.section import Section
from experiments.audit.run import Run

HEADING = "vectors"


def rows(audit: Audit) -> list[Row]:
    """The AUROC of each trait's vector on unseen pairs, at the layer chosen for it."""
    analysis = tk.open(Run(audit.folder).analysis)
    rows = []
    for trait in analysis["trait"].values.astype(str):
        here = analysis.sel(trait=trait)
        measure = f"AUROC on unseen pairs, layer {int(here['layer_selected'])}"
        names = ("trait_auroc", "trait_auroc_low", "trait_auroc_high")
        area, low, high = (float(here[name]) for name in names)
        pairs = int(here["pairs"].sel(part="report"))
        rows.append(Row(HEADING, trait, measure, area, low, high, n=pairs))
    return rows


SECTION = Section(
    HEADING,
    "How each trait's vector tells contrast pairs that it has not seen: AUROC.",
    rows,
    saved=False,
)
