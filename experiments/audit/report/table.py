"""The text that a run ends with: the verdict, then every row."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from experiments.audit import result as audit
from experiments.audit.evidence.row import HEADER, Row, aligned, undecidable
from experiments.audit.settings import Settings
from experiments.audit.verdict.hypothesis import text_hash
from experiments.audit.verdict.lines import LEVELS, PLAN, level_status, overall
from tracekit.model.embedded import EMBEDDED

EMBEDDED_HEAD = "Instrument test on a 135M model, not evidence about 70B."


def text(found: xr.Dataset, result: audit.Result, settings: Settings) -> str:
    """The verdict, the table, and what they are and are not evidence for."""
    head = [EMBEDDED_HEAD, ""] if settings.model == EMBEDDED else []
    parts = [
        *head,
        *verdict_lines(result, settings),
        "",
        *aligned([HEADER, *(row.cells() for row in all_rows(found, result))]),
        "",
        *notes(found, settings),
    ]
    return "\n".join(parts) + "\n"


def verdict_lines(result: audit.Result, settings: Settings) -> list[str]:
    """The verdict as text: its words, the hypothesis, and each level's lines."""
    lines = result.lines
    shown = [
        f"VERDICT. {overall(lines)}",
        f"Primary hypothesis, fixed before the run [{text_hash(settings.hypothesis)}]: "
        f"{settings.hypothesis}",
        left_out(result, settings),
    ]
    for level in LEVELS:
        shown += ["", f"{level}: {level_status(lines, level)} ({PLAN[level]})"]
        here = [("", line.status, line.asked, line.found) for line in lines if line.level == level]
        shown += aligned(here)
    return shown


def left_out(result: audit.Result, settings: Settings) -> str:
    """Which traits of the primary hypothesis stay in it, and which have left."""
    names = [name for name in settings.primary if name not in result.audit.traits]
    if not names:
        return "All its traits passed their own evaluation on unseen pairs."
    return (
        f"Not in this run, or not passed in their own evaluation, and left out: {', '.join(names)}."
    )


def all_rows(found: xr.Dataset, result: audit.Result) -> list[Row]:
    """How the vectors did on unseen pairs, and each arm's shift; then the audit's rows."""
    rows = []
    for trait in found["trait"].values.astype(str):
        here = found.sel(trait=trait)
        here = here.sel(layer=int(here["layer_selected"]))
        pairs = int(here["pairs"].sel(part="report"))
        measure = f"AUROC on unseen pairs, layer {int(here['layer'])}"
        rows.append(Row("vectors", trait, measure, *_bounds(here, "trait_auroc"), math.nan, pairs))
        for contrast in here["contrast"].values.astype(str):
            one = here.sel(contrast=contrast)
            what = f"{trait}: {contrast} − clean weights"
            measure = f"sd of clean, layer {int(here['layer'])}"
            rows.append(_replayed(what, measure, one))
    return [*rows, *result.rows]


def notes(found: xr.Dataset, settings: Settings) -> list[str]:
    """What the numbers are, and what they are not."""
    lines = [
        "n counts prompts, the unit of analysis (vectors: pairs). Replay: the same token ids "
        "(organism responses) under other weights, the mean over response tokens.",
        "Layer, weights and threshold were chosen on calibration biases; detection is reported on "
        "held-out ones. Intervals are 95 %, conditional on these biases.",
        'Cosines include every dim and every response token; "units" shows other handlings.',
        f"Responses that exploit, by rule: {_rates(found)}.",
        *_reasons(found),
    ]
    if not settings.base:
        lines.append(
            'The "base" that vectors come from is the same weights in raw completion (no chat '
            "markup)."
        )
    return lines


def _replayed(what: str, measure: str, one: xr.Dataset) -> Row:
    n, deviation = int(one["n"]), float(one["clean_deviation"])
    if n < 2 or not math.isfinite(deviation):
        reason = f"{n} prompt: no spread" if n < 2 else "the clean weights read all answers alike"
        return undecidable("replay", what, measure, reason, n)
    value, low, high = (bound / deviation for bound in _bounds(one, "shift"))
    return Row("replay", what, measure, value, low, high, n=n)


def _bounds(here: xr.Dataset, name: str) -> tuple[float, float, float]:
    value, low, high = (float(here[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return value, low, high


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
    line = f"Biases with both outcomes: {decided} of {found.sizes['bias']}"
    return [f"{line}; undecidable: {'; '.join(reasons)}." if reasons else f"{line}."]
