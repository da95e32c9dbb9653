"""Phase 6: the result, from saved netCDF alone; no model is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import layer_curves, measures, row
from experiments.audit.evidence.audit import evaluation_of
from experiments.audit.evidence.section import Section
from experiments.audit.phases.arms import arms
from experiments.audit.phases.projections import read
from experiments.audit.report import figures, page, plots, table
from experiments.audit.result import Result, audited
from experiments.audit.run import Run
from experiments.audit.sections import SECTIONS
from experiments.audit.settings.groups import Settings
from experiments.audit.verdict import lines
from experiments.audit.verdict.criteria import LEVELS
from experiments.audit.verdict.hypothesis import text_hash
from experiments.audit.verdict.lines import Level
from tracekit.progress import Bar
from tracekit.storage.provenance import read as provenance_of
from tracekit.storage.provenance import stamp


def run(
    folder: Path,
    settings: Settings,
    sections: Sequence[Section] = SECTIONS,
    levels: Sequence[Level] = LEVELS,
) -> list[Path]:
    """Write the numbers, the verdict, the figures (PNG and SVG), the table and the page.

    `sections` are those of the table, `levels` those of the verdict, in their order.
    """
    wanted = [arm for arm in arms(settings) if arm.split("/")[1] in ("organism", "clean")]
    projections = {arm: read(folder, arm) for arm in wanted}
    texts = {arm: tk.open(Run(folder).responses(arm)) for arm in settings.arms}
    shifts = analysis(projections, texts, evaluation_of(folder, settings), settings)
    tk.save(shifts, Run(folder).analysis)  # sections read it
    result = audited(folder, settings, sections, levels)
    numbers = saved(folder, shifts, result, settings)
    Run(folder).table.write_text(table.text(shifts, result, settings), "utf-8")
    drawn = figures_of(folder, shifts, result)
    page.write(folder, shifts, result, settings, drawn)
    there = Run(folder)
    return [there.analysis, there.table, there.report, *numbers, *drawn]


def saved(folder: Path, shifts: xr.Dataset, result: Result, settings: Settings) -> list[Path]:
    """Write rows, verdict, scores and, if decided, the curves over depth."""
    there = Run(folder)
    named = {
        there.rows: row.to_dataset(result.saved_rows),
        there.verdict: lines.to_dataset(result.lines).assign_attrs(
            hypothesis=settings.hypothesis.stated,
            hypothesis_hash=text_hash(settings.hypothesis.stated),
        ),
    }
    if curves := result.audit.once(layer_curves.by_part):
        named[there.curves] = xr.concat(list(curves.values()), xr.Variable("part", list(curves)))
    for path, dataset in named.items():
        tk.save(stamp(dataset, provenance_of(shifts)), path)
    tk.save(result.audit.rows, there.scores)
    return [*named, there.scores]


def figures_of(folder: Path, shifts: xr.Dataset, result: Result) -> list[Path]:
    """Draw every figure, each as PNG and SVG; those that cannot be decided are left out."""
    drawn = []
    by_spread = {"heatmap": figures.heatmap, "prompts": plots.prompts}
    anyway = {"trajectories": figures.trajectories, "rates": plots.rates}
    whole = bool(np.isfinite(shifts["clean_deviation"]).any())
    for name, draw in {**anyway, **(by_spread if whole else {})}.items():
        drawn += figures.both(draw(shifts), folder / name)
    if curves := result.audit.once(layer_curves.by_part):
        drawn += figures.both(plots.curves(curves), folder / "layers")
        drawn += figures.both(plots.roc(result.audit), folder / "roc")
    return drawn


def analysis(
    projections: dict[str, xr.DataArray],
    texts: dict[str, xr.Dataset],
    evaluation: xr.Dataset,
    settings: Settings,
) -> xr.Dataset:
    """What each arm does on the same ids, from cosine projections (prompt, token, layer, trait).

    Over (contrast, layer, trait): `shift_mean`, of the response mean, `contrast` − clean weights,
    with its interval, and `prompt_shift`; `clean_deviation` (layer, trait), the spread over
    prompts of the clean weights' response means, and `undecidable` (bias), why it says nothing;
    `trajectory_*` (arm, token, trait) at the chosen layer; `hits` and `responses` (arm, bias).
    Intervals are 95 %, over prompts.
    """
    generator = np.random.default_rng(settings.null.seed)
    means = {arm: measures.response_mean(array) for arm, array in projections.items()}
    weights = [arm for arm in settings.arms if f"{arm}/organism" in means and arm != "clean"]
    clean = means["clean/organism"]
    shifts = [
        measures.shift(means[f"{arm}/organism"], clean, generator, settings.null.repetitions)
        for arm in Bar(weights, unit="arm", desc="analyse", leave=False)
    ]
    whole = xr.concat(shifts, xr.Variable("contrast", weights))
    whole["clean_deviation"] = measures.deviation(clean)
    checked = evaluated(evaluation)
    parts = [
        checked,
        _labels(means["organism/organism"], texts),
        _paths(projections, checked["layer_selected"]),
    ]
    whole = xr.merge([whole, *parts], join="exact", compat="no_conflicts")
    return stamp(whole, _provenance(projections, evaluation, settings))


def evaluated(evaluation: xr.Dataset) -> xr.Dataset:
    """The layer chosen for each trait, and how its vector did there on unseen pairs."""
    at = evaluation.sel(layer=evaluation["layer_selected"]).drop_vars("layer")
    renamed = {"auroc": "trait_auroc", "auroc_low": "trait_auroc_low"}
    renamed["auroc_high"] = "trait_auroc_high"
    chosen = at[[*renamed, "pairs"]].rename(renamed)
    return chosen.assign(layer_selected=evaluation["layer_selected"]).drop_attrs()


def _labels(scores: xr.DataArray, texts: dict[str, xr.Dataset]) -> xr.Dataset:
    counted = measures.rates({arm: runs["exploit"] for arm, runs in texts.items()})
    reasons = measures.decidable(measures.biases(scores), scores["exploit"].values)
    why = xr.DataArray(list(reasons.values()), {"bias": list(reasons)}, name="undecidable")
    return counted.rename(arm="text_arm").merge(why.astype(np.str_))


def _paths(projections: dict[str, xr.DataArray], layer: xr.DataArray) -> xr.Dataset:
    shown = {arm: array for arm, array in projections.items() if arm != "organism/clean"}
    whole = measures.trajectories(shown).sel(layer=layer).drop_vars("layer")
    whole["marked"] = measures.marked_share(projections["organism/organism"])
    return whole.rename({name: f"trajectory_{name}" for name in whole.data_vars})


def _provenance(
    projections: dict[str, xr.DataArray], evaluation: xr.Dataset, settings: Settings
) -> dict[str, Any]:
    return {
        "made_by": "experiments.audit.phases.analysis",
        "arms": {arm: provenance_of(array) for arm, array in projections.items()},
        "evaluation": provenance_of(evaluation),
        "unit": "cosine of residual and trait vector, mean over response tokens",
        "repetitions": settings.null.repetitions,
        "seed": settings.null.seed,
        "biases": json.dumps("conditional on these"),
    }
