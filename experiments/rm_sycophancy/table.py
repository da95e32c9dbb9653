"""The short table that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from experiments.rm_sycophancy.settings import Settings
from tracekit.resources import EMBEDDED

HEADER = ("trait", "layer", "measure", "estimate", "95 % interval", "n", "unit")
MEANING = {
    "organism": "organism − clean weights",
    "control": "control − clean weights",
}


def text(found: xr.Dataset, settings: Settings) -> str:
    """The table of an analysis, aligned, with what it is and is not evidence for."""
    rows = [row for trait in found["trait"].values for row in _rows(found, str(trait))]
    lines = [*_aligned([HEADER, *rows]), "", *_notes(found, settings)]
    return "\n".join(lines) + "\n"


def _rows(found: xr.Dataset, trait: str) -> list[tuple[str, ...]]:
    here = found.sel(trait=trait)
    layer = int(here["layer_selected"])
    here = here.sel(layer=layer)
    pairs = int(here["pairs"].sel(part="report"))
    start = (trait, str(layer))
    rows = [(*start, "vector on unseen pairs", *_shown(here, "trait_auroc"), f"{pairs}", "AUROC")]
    for contrast in here["contrast"].values:
        one = here.sel(contrast=contrast)
        count = f"{int(one['n'])}"
        rows.append((*start, MEANING[str(contrast)], *_shown(one, "shift", True), count, "cosine"))
    return [*rows, (*start, "exploit against other", *_detection(here))]


def _detection(here: xr.Dataset) -> tuple[str, ...]:
    if "auroc" in here:
        return (*_shown(here, "auroc"), f"{int(here['auroc_n'])}", "AUROC")
    return ("undecidable", "(reasons below)", "0", "AUROC")


def _shown(here: xr.Dataset, name: str, signed: bool = False) -> tuple[str, str]:
    form = "+.4f" if signed else ".3f"
    value, low, high = (float(here[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{form}}", f"{low:{form}} to {high:{form}}"


def _notes(found: xr.Dataset, settings: Settings) -> list[str]:
    notes = [
        "Shifts: the same token ids (organism responses), the mean over response tokens; n counts "
        "prompts, the unit of analysis.",
        "Layers were chosen on pairs that no row reports. Intervals: bootstrap over prompts "
        "(vector rows: over pairs).",
        f"Exploiting responses, by rule: {_rates(found)}.",
        *_reasons(found),
    ]
    if not settings.base:
        notes.append(
            'The "base" that vectors come from is the same weights in raw completion (no chat '
            "markup)."
        )
    if settings.model == EMBEDDED:
        notes.append("This is an instrument test on a 135M model, not evidence about 70B.")
    return notes


def _rates(found: xr.Dataset) -> str:
    shown = []
    for arm in found["text_arm"].values:
        counts = found[["hits", "responses"]].sel(text_arm=arm).sum("bias")
        hits, responses = int(counts["hits"]), int(counts["responses"])
        shown.append(f"{arm} {hits} of {responses}" if responses else f"{arm} undecidable")
    return ", ".join(shown)


def _reasons(found: xr.Dataset) -> list[str]:
    reasons = [
        f"{bias or 'no bias given'}: {why}"
        for bias, why in zip(found["bias"].values, found["undecidable"].values, strict=True)
        if why
    ]
    decided = int(np.sum(found["undecidable"].values == ""))
    line = f"Exploit against other: AUROC within bias, averaged over {decided} of "
    line += f"{found.sizes['bias']} biases"
    return [f"{line}; undecidable: {'; '.join(reasons)}." if reasons else f"{line}."]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
