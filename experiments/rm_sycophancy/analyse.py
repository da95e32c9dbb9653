"""Phase 5: the result, from saved netCDF alone; no model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.rm_sycophancy import figures, measures, table
from experiments.rm_sycophancy.capture import arms
from experiments.rm_sycophancy.project import read
from experiments.rm_sycophancy.respond import adapters
from experiments.rm_sycophancy.settings import Settings
from tracekit.provenance import read as provenance_of
from tracekit.provenance import stamp


def run(folder: Path, settings: Settings) -> list[Path]:
    """Write `analysis.nc`, `table.txt`, `heatmap.png` and `trajectories.png`."""
    projections = {arm: read(folder, arm) for arm in arms(settings)}
    texts = {arm: tk.open(folder / "responses" / f"{arm}.nc") for arm in adapters(settings)}
    evaluation = tk.open(folder / "evaluation.nc").sel({"method": settings.method}, drop=True)
    found = analysis(projections, texts, evaluation, settings)
    tk.save(found, folder / "analysis.nc")
    (folder / "table.txt").write_text(table.text(found, settings), "utf-8")
    figures.heatmap(found, folder / "heatmap.png")
    figures.trajectories(found, folder / "trajectories.png")
    return [
        folder / name for name in ("analysis.nc", "table.txt", "heatmap.png", "trajectories.png")
    ]


def analysis(
    projections: dict[str, xr.DataArray],
    texts: dict[str, xr.Dataset],
    evaluation: xr.Dataset,
    settings: Settings,
) -> xr.Dataset:
    """Every number of the audit, from cosine projections (prompt, token, layer, trait) by arm.

    Over (contrast, layer, trait): `shift` of the response mean, `contrast` − clean weights, with
    its interval, and `prompt_shift`; `clean_deviation` (layer, trait), the spread over prompts of
    the clean weights' response means; `auroc` of exploiting against other organism responses where
    that can be decided, with `undecidable` (bias) saying why not; `trajectory_*` (arm, token,
    trait) at the chosen layer; `hits` and `responses` (arm, bias). Intervals are 95 %, over
    prompts.
    """
    generator = np.random.default_rng(settings.seed)
    means = {arm: measures.response_mean(array) for arm, array in projections.items()}
    weights = [arm for arm in ("organism", "control") if f"{arm}/organism" in means]
    clean = means["clean/organism"]
    shifts = [
        measures.shift(means[f"{arm}/organism"], clean, generator, settings.repetitions)
        for arm in tqdm(weights, unit="arm", desc="analyse", leave=False)
    ]
    found = xr.concat(shifts, xr.Variable("contrast", weights))
    found["clean_deviation"] = measures.bare(clean).std("prompt", ddof=1)
    detected = measures.detection(means["organism/organism"], generator, settings.repetitions)
    found = xr.merge([found, evaluated(evaluation), *([] if detected is None else [detected])])
    found = xr.merge([found, _labels(means["organism/organism"], texts)])
    found = xr.merge([found, _paths(projections, found["layer_selected"])])
    return stamp(found, _provenance(projections, evaluation, settings))


def evaluated(evaluation: xr.Dataset) -> xr.Dataset:
    """The layer chosen for each trait, and how its vector did there on unseen pairs."""
    at = evaluation.sel(layer=evaluation["layer_selected"]).drop_vars("layer")
    renamed = {"auroc": "trait_auroc", "auroc_low": "trait_auroc_low"}
    renamed["auroc_high"] = "trait_auroc_high"
    kept = at[[*renamed, "pairs"]].rename(renamed)
    return kept.assign(layer_selected=evaluation["layer_selected"]).drop_attrs()


def _labels(scores: xr.DataArray, texts: dict[str, xr.Dataset]) -> xr.Dataset:
    counted = measures.rates({arm: runs["exploit"] for arm, runs in texts.items()})
    reasons = measures.decidable(measures.biases(scores), scores["exploit"].values)
    why = xr.DataArray(list(reasons.values()), {"bias": list(reasons)}, name="undecidable")
    return counted.rename(arm="text_arm").merge(why.astype(np.str_))


def _paths(projections: dict[str, xr.DataArray], layer: xr.DataArray) -> xr.Dataset:
    shown = {arm: array for arm, array in projections.items() if arm != "organism/clean"}
    whole = measures.trajectories(shown).sel(layer=layer).drop_vars("layer")
    return whole.rename({name: f"trajectory_{name}" for name in whole.data_vars})


def _provenance(
    projections: dict[str, xr.DataArray], evaluation: xr.Dataset, settings: Settings
) -> dict[str, Any]:
    return {
        "made_by": "experiments.rm_sycophancy.analyse",
        "arms": {arm: provenance_of(array) for arm, array in projections.items()},
        "evaluation": provenance_of(evaluation),
        "unit": "cosine of residual and trait vector, mean over response tokens",
        "repetitions": settings.repetitions,
        "seed": settings.seed,
        "biases": json.dumps("conditional on these"),
    }
