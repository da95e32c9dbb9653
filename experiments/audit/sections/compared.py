"""What the trait score is held against: competitors, nulls, and ceilings, on the same splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tracekit as tk
from experiments.audit.evidence import nulls, rivals
from experiments.audit.evidence.detection import Scores, choose, composite
from experiments.audit.evidence.estimates import PRIMARY, intervals
from experiments.audit.evidence.gather import likelihood_ratio
from experiments.audit.evidence.relabel import groups, within_bias_auroc
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.sections.claims import Audit
from experiments.audit.vectors import evaluation, stories
from traits import pairs, select_part
from traits.statistics import against_null

COMPETITORS, NULLS, CEILING = "competitors", "nulls", "ceiling"
PUBLISHED = "the paper's SAE features"


def competitor_scores(audit: Audit, folder: Path) -> dict[str, np.ndarray]:
    """One score a response by name, the trait score first; signs learnt on calibration biases.

    Rows that cannot be scored (a judge that failed) are NaN.
    """
    rows, scores = audit.rows, audit.scores()
    fitted = audit.part("calibration")
    texts = rows["response"].values.astype(str).tolist()
    chosen = audit.choice
    plain = {
        "length": rows["length"].values.astype(float),
        "position": rows["prompt_length"].values + rows["length"].values / 2.0,
        "activation norm": rows["norm"].values[:, chosen.layer].astype(float),
        "log-likelihood ratio of the weights": likelihood_ratio(folder, rows),
        **_asked(folder, rows),
    }
    learnt = {
        "words (TF-IDF), across biases": rivals.words_across(texts, scores.label, fitted),
        "words (TF-IDF), within bias": rivals.words_within(
            texts, scores.label, scores.bias, scores.group
        ),
        "word log-odds": rivals.word_log_odds(texts, scores.label, fitted),
        "the same trait score, clean weights": composite(
            audit.scores("clean_score"), audit.choice_for("clean_score")
        ),
    }
    signs = {
        name: rivals.signed(values, scores.label, scores.bias, fitted)
        if np.isfinite(values).all()
        else values
        for name, values in plain.items()
    }
    return {PRIMARY: composite(scores, chosen), **signs, **learnt}


def competitors(audit: Audit, scores: dict[str, np.ndarray]) -> tuple[list[Row], xr.Dataset | None]:
    """AUROCs of all scores on held-out biases and the trait score's gain over each.

    With balanced accuracy and r; one bootstrap, the same draws for all. Also the intervals.
    """
    if audit.reason:
        return [undecidable(COMPETITORS, "all competitors", "AUROC", audit.reason)], None
    held = audit.part("held_out")
    here = audit.scores().rows(held)
    whole = {name: values[held] for name, values in scores.items()}
    failed = {k: int((~np.isfinite(v)).sum()) for k, v in whole.items() if not np.isfinite(v).all()}
    kept = {name: values for name, values in whole.items() if name not in failed}
    found = intervals(
        kept,
        here.label,
        here.bias,
        here.group,
        audit.choice.threshold,
        audit.generator("intervals"),
        audit.settings.repetitions,
    )
    n = groups(here.group)
    rows = []
    for quantity in found["quantity"].values.astype(str):
        kind, _, name = quantity.partition(" ") if quantity.startswith("auroc") else (quantity,) * 3
        what, measure = (name, "AUROC") if kind == "auroc" else (PRIMARY, quantity)
        rows.append(of_interval(COMPETITORS, what, measure, found.sel(quantity=quantity), n))
    rows += [
        undecidable(COMPETITORS, name, "AUROC", f"{count} of {len(here.label)} without a score")
        for name, count in failed.items()
    ]
    rows.append(undecidable(COMPETITORS, PUBLISHED, "AUROC", "published, not comparable"))
    return rows, found


def null_rows(
    audit: Audit, folder: Path, observed: float
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The composite AUROC beside each null, sent through the same selection."""
    if audit.reason:
        return [undecidable(NULLS, "all nulls", "AUROC", audit.reason)], {}
    made = tk.open(folder / "means.nc").sel(prompt=audit.rows["prompt"].values)
    own = made.sel(weights="organism").values
    scores, fitted = audit.scores(), audit.part("calibration")
    used = fitted | audit.part("held_out")
    rows, drawn = [], {}
    for name, directions in _null_directions(audit, folder, made).items():
        areas = nulls.null_areas(
            own[used], scores.rows(used), fitted[used], audit.allowed, directions
        )
        p = against_null(xr.DataArray(observed), xr.DataArray(areas, dims="draw"))["p"].item()
        low, high = np.quantile(areas, [0.025, 0.975])
        rows.append(
            Row(
                NULLS,
                name,
                f"AUROC of {len(areas)} draws, p of the trait score",
                float(np.median(areas)),
                float(low),
                float(high),
                p,
                groups(scores.group),
            )
        )
        drawn[name] = areas
    if "placebo traits" not in drawn:
        reason = "no placebo contrast sets were captured in this run"
        rows.append(undecidable(NULLS, "placebo traits", "AUROC", reason))
    return rows, drawn


def ceilings(audit: Audit, folder: Path, observed: float) -> list[Row]:
    """What a supervised probe and the difference's top components reach, and our fraction."""
    if audit.reason:
        return [undecidable(CEILING, "supervised probe", "AUROC", audit.reason)]
    made = tk.open(folder / "means.nc").sel(prompt=audit.rows["prompt"].values)
    layer = audit.choice.layer
    own = made.sel(weights="organism").values[:, layer].astype(float)
    moved = own - made.sel(weights="clean").values[:, layer]
    scores, fitted, held = audit.scores(), audit.part("calibration"), audit.part("held_out")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    probe.fit(own[fitted], scores.label[fitted])
    found = {
        "supervised probe": probe.decision_function(own),
        "top 5 components of organism − clean": _components(moved, scores, fitted),
    }
    rows = []
    for name, values in found.items():
        here, n = scores.rows(held), groups(scores.group[held])
        area = within_bias_auroc(values[held, None], here.label[None], here.bias)[0, 0]
        rows.append(Row(CEILING, name, f"AUROC, layer {audit.layers[layer]}", area, n=n))
        if area > 0.5:
            share = (observed - 0.5) / (area - 0.5)
            rows.append(Row(CEILING, name, "fraction reached by the trait score", share, n=n))
    return rows


def massive_scores(audit: Audit, folder: Path) -> dict[str, np.ndarray]:
    """Response means with the massive dims taken out of the vectors: (prompt, layer, trait)."""
    vectors = tk.open(folder / "vectors.nc").sel({"method": audit.settings.method}, drop=True)
    made = tk.open(folder / "means.nc").sel(prompt=audit.rows["prompt"].values)
    told = _stories(audit, folder, audit.traits[0])
    plain = nulls.without_massive(vectors.sel(trait=list(audit.traits)), told)
    own = made.sel(weights="organism").values
    values = np.einsum("rld,tld->rlt", own, nulls.unit(plain.values), optimize=True)
    return {"cosine, massive dims taken out of the vectors": values}


def _asked(folder: Path, rows: xr.Dataset) -> dict[str, np.ndarray]:
    found = tk.open(folder / "questions.nc").sel(prompt=rows["prompt"].values)
    return {str(way): found.sel(way=way).values for way in found["way"].values}


def _null_directions(
    audit: Audit, folder: Path, made: xr.DataArray
) -> dict[str, Iterator[np.ndarray]]:
    draws, count = audit.settings.directions, len(audit.traits)
    moved = (made.sel(weights="organism") - made.sel(weights="clean")).values.astype(float)
    found = {
        "covariance-matched directions": nulls.matched_directions(
            moved, count, audit.generator("covariance"), draws
        )
    }
    sides = [pairs(_stories(audit, folder, trait)) for trait in audit.traits]
    found["shuffled pairs"] = nulls.shuffled_directions(
        [(up.values.astype(float), down.values.astype(float)) for up, down in sides],
        audit.generator("shuffled"),
        draws,
    )
    if (folder / "placebos.nc").is_file():
        at = {"method": audit.settings.method, "window": _window(audit, folder, audit.traits[0])}
        placebos = tk.open(folder / "placebos.nc").sel(at).transpose("trait", "layer", "dim")
        found["placebo traits"] = nulls.placebo_directions(
            nulls.unit(placebos.values), count, audit.generator("placebo"), draws
        )
    return found


def _stories(audit: Audit, folder: Path, trait: str) -> xr.DataArray:
    """The traces that a trait's vector was fitted on: (prompt, layer, dim)."""
    whole = tk.open(stories.file_of(folder, trait))
    part, _ = evaluation.split(whole, audit.settings)
    return select_part(whole, part, "fit").sel(window=_window(audit, folder, trait))


def _window(audit: Audit, folder: Path, trait: str) -> str:
    chosen = tk.open(folder / "evaluation.nc")["window_selected"]
    return chosen.sel({"method": audit.settings.method, "trait": trait}).item()


def _components(moved: np.ndarray, scores: Scores, fitted: np.ndarray) -> np.ndarray:
    centre = moved[fitted].mean(axis=0)
    _, _, directions = np.linalg.svd(moved[fitted] - centre, full_matrices=False)
    projected = (moved - centre) @ directions[:5].T
    rows = Scores(projected[:, None], scores.label, scores.bias, scores.group)
    return composite(rows, choose(rows.rows(fitted), np.array([0])))


def bounds(found: xr.Dataset | None, quantity: str) -> tuple[float, float, float]:
    """(estimate, low, high) of a quantity; NaN where there is none."""
    if found is None or quantity not in found["quantity"].values:
        return (math.nan,) * 3
    here = found.sel(quantity=quantity)
    return tuple(float(here[name]) for name in ("estimate", "low", "high"))  # type: ignore[return-value]
