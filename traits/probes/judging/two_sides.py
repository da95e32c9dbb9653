"""One probe's scores of the same responses in two places: agreement, areas, and what is flagged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.storage.provenance import read
from traits.probes.threshold import by_group, exact_interval
from traits.statistics import auroc, cluster_bootstrap

Side = Any  # a model, or what its capture(probes=…) gave


def scores_of(probe: xr.Dataset, side: Side, runs: xr.Dataset | None, budget: int | None) -> Any:
    """A side's pooled scores (prompt), with its labels and provenance.

    Errors: `ValueError` for a model without runs, scores of several probes, or not finite ones.
    """
    if isinstance(side, xr.DataArray):
        pooled = side.coords["pooled"].assign_attrs(side.attrs) if "pooled" in side.coords else side
        pooled = pooled.squeeze("probe", drop=True) if "probe" in pooled.dims else pooled
    elif runs is None:
        raise InputError(
            "portability was given a model and no runs to score with it. Give the transcripts, or "
            "what was captured of both sides."
        )
    else:
        captured = tk.capture(
            side, runs, probes=probe, transfer=True, token_budget=budget, progress=False
        )
        pooled = captured["pooled"].isel(probe=0, drop=True).assign_attrs(captured.attrs)
    if pooled.dims != ("prompt",) or not np.isfinite(pooled.values).all():
        raise InputError(
            f"A side's scores have the dims {pooled.dims} and "
            f"{int((~np.isfinite(pooled.values)).sum())} values that are not finite; one finite "
            "pooled score a prompt is needed. Capture this probe alone, and rows with a response."
        )
    return pooled


def together(a: xr.DataArray, b: xr.DataArray, group: str | None) -> xr.Dataset:
    """`score_a` and `score_b` (prompt) in the order of a, and `unit`, the prompt a row is of.

    Errors: `ValueError` for prompts on one side alone, and for scores of two probes.
    """
    _require_one_probe(a, b)
    if a.sizes["prompt"] != b.sizes["prompt"] or "prompt" not in a.coords:
        raise InputError(
            f"The sides have {a.sizes['prompt']} and {b.sizes['prompt']} prompts; the same "
            "responses are scored on both, and known by their ids. Capture both on the same runs."
        )
    names = [{str(name) for name in side["prompt"].values} for side in (a, b)]
    if names[0] != names[1]:
        strange = sorted(names[0] ^ names[1])
        raise InputError(
            f"{len(strange)} prompts, such as {strange[0]!r}, are on one side alone. Capture both "
            "on the same runs."
        )
    kept = {} if group is None or group not in a.coords else {group: a[group]}
    labels = {str(n): c for n, c in a.coords.items() if c.dims == ("prompt",)}
    b = b.sel(prompt=a["prompt"]).reset_coords(drop=True)
    both = xr.Dataset({"score_a": a.reset_coords(drop=True), "score_b": b}, {**labels, **kept})
    names_of = both["prompt"].values if not kept else both[group].values
    return both.assign_coords(unit=("prompt", names_of.astype(str)))


def _require_one_probe(*sides: xr.DataArray) -> None:
    made = [read(side).get("probes", {}) if "provenance" in side.attrs else {} for side in sides]
    known = [{one["hash"] for one in probes.values()} for probes in made]
    if all(known) and not known[0] & known[1]:
        raise InputError(
            f"The sides were scored by the probes {sorted(known[0])} and {sorted(known[1])}; one "
            "probe is compared with itself. Capture both with the same."
        )


def label_of(
    both: xr.Dataset, labels: xr.DataArray | str | None, negatives: xr.DataArray | None
) -> xr.DataArray:
    """1, 0, or NaN where nothing is said."""
    if isinstance(labels, str):
        _require_label(both, labels)
        labels = both[labels]
    given = labels if labels is not None else negatives
    if given is None:
        return xr.full_like(both["score_a"], np.nan, dtype=float)
    if given.dims != ("prompt",) or given.sizes["prompt"] != both.sizes["prompt"]:
        raise InputError(
            f"The labels have the dims {given.dims} and {given.size} values; one a prompt is "
            f"needed, for {both.sizes['prompt']} prompts."
        )
    if "prompt" in given.coords:
        given = given.sel(prompt=both["prompt"])
    values = given.values.astype(float)
    if labels is None:
        values = np.where(values == 1, 0.0, np.nan)
    if not np.isin(values[np.isfinite(values)], (0, 1)).all():
        raise InputError(
            f"The labels hold {sorted(set(values[np.isfinite(values)].tolist()))[:5]}; they are 1, "
            "0, or NaN for a prompt without."
        )
    return xr.DataArray(values, dims="prompt")


def _require_label(both: xr.Dataset, name: str) -> None:
    if name not in both.coords:
        raise InputError(
            f"The label {name!r} was asked for, and the scores have "
            f"{sorted(map(str, both.coords))}. Name one of these, or give an array."
        )


def _interval(
    rows: xr.Dataset, statistic: Any, draws: int, confidence: float, generator: Any
) -> xr.Dataset:
    settings: dict[str, Any] = {"group": "unit", "repetitions": draws, "level": confidence}
    return cluster_bootstrap(rows, statistic, generator=generator, **settings)


def agreement(
    both: xr.Dataset, label: xr.DataArray, draws: int, confidence: float, generator: Any
) -> dict[str, Any]:
    """Correlations, and the shift in deviations of the negatives (of all, without labels) on a.

    Errors: `ValueError` for scores that are all the same.
    """
    a, b = both["score_a"], both["score_b"]
    clean = a.values[label.values == 0] if (label == 0).any() else a.values
    deviation = float(np.std(clean, ddof=1))
    if not deviation > 0:
        raise InputError(
            f"All {len(clean)} scores on the first side are {clean[0]:.4g}: nothing can be "
            "compared. Look at what the probe was fitted on."
        )
    moved = ((b - a) / deviation).to_dataset(name="moved").assign_coords(unit=both["unit"])
    shift = _interval(
        moved, lambda rows: rows["moved"].mean("prompt"), draws, confidence, generator
    )
    return {
        "correlation": xr.corr(a, b),
        "rank_correlation": xr.DataArray(spearmanr(a.values, b.values).statistic),
        "shift": shift["estimate"],
        "shift_low": shift["low"],
        "shift_high": shift["high"],
        "scatter": moved["moved"].std("prompt", ddof=1),
    }


def areas(
    both: xr.Dataset, label: xr.DataArray, draws: int, confidence: float, generator: Any
) -> dict[str, Any]:
    """The AUROC on each side, and their difference with its interval; NaN without both classes."""
    ends = ("auroc_difference", "auroc_difference_low", "auroc_difference_high")
    names = ("auroc_a", "auroc_b", *ends)
    if len({0.0, 1.0} & set(label.values.tolist())) < 2:
        return dict.fromkeys(names, xr.DataArray(np.nan))
    rows = both[["score_a", "score_b"]].assign(label=label).isel(prompt=np.isfinite(label.values))

    def difference(rows: xr.Dataset) -> xr.DataArray:
        if rows["label"].min() == rows["label"].max():
            return xr.DataArray(np.nan)
        return auroc(rows["score_b"], rows["label"]) - auroc(rows["score_a"], rows["label"])

    found = _interval(rows, difference, draws, confidence, generator)
    two = [auroc(rows[f"score_{side}"], rows["label"]) for side in "ab"]
    values = (*two, found["estimate"], found["low"], found["high"])
    return dict(zip(names, values, strict=True))


def flags(
    probe: xr.Dataset, both: xr.Dataset, label: xr.DataArray, confidence: float
) -> dict[str, Any]:
    """What the stored threshold flags on each side, with exact intervals; what would restore it."""
    threshold = float(probe.get("threshold", math.nan))
    wanted = float(probe.get("threshold_fpr", math.nan))
    numbers: dict[str, Any] = {"threshold": threshold, "restoring": math.nan}
    flips = np.zeros((2, 2), int)
    for place, (name, value, which) in enumerate((("rate", 0, "max"), ("recall", 1, "min"))):
        rows = both.isel(prompt=(label == value).values)
        own = [by_group(rows[f"score_{side}"], "unit", which).values for side in "ab"]
        over = [scores > threshold for scores in own]
        flips[place] = (~over[0] & over[1]).sum(), (over[0] & ~over[1]).sum()
        numbers[f"n_{'negative' if value == 0 else 'positive'}"] = count = len(own[0])
        for side, flagged in zip("ab", over, strict=True):
            numbers |= _share(f"{name}_{side}", int(flagged.sum()), count, confidence, threshold)
        if value == 0 and count:
            numbers["restoring"] = _restoring(own[1], int(over[0].sum()), threshold)
    wanted = numbers["rate_a"] if math.isnan(wanted) else wanted
    numbers = {key: xr.DataArray(value) for key, value in numbers.items()}
    table = xr.DataArray(
        flips,
        {"class": ["negative", "positive"], "direction": ["flagged on b alone", "on a alone"]},
        ("class", "direction"),
    )
    return {**numbers, "threshold_fpr": xr.DataArray(wanted), "flips": table}


def _share(name: str, hits: int, of: int, confidence: float, threshold: float) -> dict[str, float]:
    if not of or math.isnan(threshold):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    low, high = exact_interval(hits, of, confidence)
    return {name: hits / of, f"{name}_low": low, f"{name}_high": high}


def _restoring(scores: np.ndarray, flagged: int, threshold: float) -> float:
    """Halfway between the scores of the last that is flagged and the first that is not."""
    if math.isnan(threshold):
        return math.nan
    ordered = np.sort(scores)[::-1]
    if flagged in (0, len(ordered)):
        return float(np.nextafter(ordered[0], np.inf) if not flagged else ordered[-1] - 1e-6)
    return float(ordered[flagged - 1 : flagged + 1].mean())
