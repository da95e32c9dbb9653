"""One source's table: methods × poolings, each chosen on its own part, judged on the report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
import traits
from experiments.benchmarks.probes.texts import Texts

NULLS = ("shuffled labels", "covariance-matched")
DRAWN = ("mean_diff", "logistic", "lda", "ridge")  # a network takes too long to fit again and again
METHODS = ("mean_diff", "logistic", "lda", "ridge", "mlp", "attention")
POOLINGS = ("mean", "max", "last", "rolling_max", "top_k", "softmax", "ema")
COLUMNS = (
    *("method", "pooling", "layer", "select AUROC", "AUROC (these kinds)", "other kinds"),
    *("recall at 5 %", "Brier", "gain over TF-IDF", "p shuffled", "p matched"),
)
ENDS = ("estimate", "low", "high")


@dataclass(frozen=True)
class Cell:
    """A probe of one method and pooling, and how it does on the report."""

    probe: xr.Dataset
    result: xr.Dataset
    chosen: bool

    @property
    def chosen_by(self) -> float:
        """Its AUROC on the part "select"."""
        return float(self.probe["selection"].max())


def captured(
    model: tk.Model, texts: Texts, layers: Sequence[int], out: Path | None
) -> xr.DataArray:
    """The residuals of the texts' tokens under the source's adapter; in a folder of `out`, if any.

    A capture that is there goes on, or is taken as it is.
    """
    path = None if out is None else out / texts.name.replace(" ", "_")
    with tk.adapter(model, texts.adapter) as attached:
        made = tk.capture(attached, texts.runs, layers=layers, tokens=slice(0, None), path=path)
    return made.load().sel(prompt=texts.runs["prompt"].values)


def cells(
    texts: Texts,
    traces: xr.DataArray,
    methods: Sequence[str],
    poolings: Sequence[str],
    draws: int,
    resamples: int,
) -> list[Cell]:
    """Every method by every pooling that it can have, and by the one that its own part chooses.

    The nulls are of that one: they go through the choice of the pooling too.
    """
    made: list[Cell] = []
    for method in methods:
        own = ("attention",) if method == "attention" else tuple(poolings)
        for pooling in (*own, list(own)):
            chosen = not isinstance(pooling, str)
            if chosen and len(own) == 1:
                continue
            null = draws if chosen and method in DRAWN else 0
            how = {"method": method, "pooling": pooling}
            made.append(_cell(texts, traces, how, null, resamples, chosen))
            print("  " + " | ".join(row(made[-1])), flush=True)
    return made


def row(cell: Cell) -> list[str]:
    """A cell's row of the table."""
    result = cell.result
    at = {name: result.sel(measure=name) for name in ("auroc", "recall_at_0.05", "brier")}
    brier = at["brier"]["estimate"].item()
    over = [result[f"over_kinds_{end}"].sel(measure="auroc").item() for end in ENDS]
    gain = [result[f"gain{end}"].sel(baseline="tf-idf").item() for end in ("", "_low", "_high")]
    return [
        cell.probe.attrs["method"],
        cell.probe.attrs["pooling"] + (", chosen" if cell.chosen else ""),
        str(cell.probe["layer"].item()),
        f"{cell.chosen_by:.2f}",
        interval(*(at["auroc"][end].item() for end in ENDS)),
        interval(*over) if np.isfinite(over).all() else "undecidable",
        interval(*(at["recall_at_0.05"][end].item() for end in ENDS)),
        f"{brier:.3f}" if np.isfinite(brier) else "–",
        interval(gain[0], gain[1], gain[2], sign="+"),
        *(_p(result, name) for name in NULLS),
    ]


def interval(estimate: float, low: float, high: float, sign: str = "") -> str:
    """A number with its bounds.

    >>> interval(0.7, 0.6, 0.8)
    '0.70 (0.60 to 0.80)'
    """
    if not np.isfinite(estimate):
        return "undecidable"
    if not np.isfinite([low, high]).all():
        return f"{estimate:{sign}.2f} (no interval)"
    return f"{estimate:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def lines(texts: Texts, made: Sequence[Cell], draws: int) -> list[str]:
    """The table of a source in Markdown, with the cell that its own part chooses, and baselines."""
    best = max((cell for cell in made if cell.chosen), key=lambda cell: cell.chosen_by)
    found = best.result
    head = [f"### {texts.said}", "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    body = [f"| {' | '.join(row(cell))} |" for cell in made]
    areas = xr.concat([found[f"baseline_auroc{end}"] for end in ("", "_low", "_high")], "end")
    names = found["baseline"].values.astype(str)
    baselines = [f"{name} {interval(*areas.sel(baseline=name).values)}" for name in names]
    by_kind = found["by_kind"].sel(measure="auroc").to_series()
    kinds = [f"{kind} {value:.2f}" for kind, value in by_kind.items()]
    nulls = [
        f"{name} {found['null_quantile'].sel(null=name).values[0]:.2f}, 95 % of draws below "
        f"{found['null_quantile'].sel(null=name).values[1]:.2f}"
        for name in (found["null"].values.astype(str) if "null" in found else ())
    ]
    told = f"{best.probe.attrs['method']}, {best.probe.attrs['pooling']}"
    return [
        *head,
        *body,
        "",
        f"Chosen on the part of its own: {told}, layer {best.probe['layer'].item()}, AUROC there "
        f"{best.chosen_by:.2f}; on the report {row(best)[4]}, other kinds {row(best)[5]}.",
        f"By kind: {'; '.join(kinds)}. Texts alone: {'; '.join(baselines)}.",
        f"Nulls of that cell, {draws} draws each: median {'; '.join(nulls) or 'not drawn'}.",
        "",
    ]


def _cell(
    texts: Texts,
    traces: xr.DataArray,
    how: Mapping[str, Any],
    draws: int,
    resamples: int,
    chosen: bool,
) -> Cell:
    draw = np.random.default_rng(0)
    probe = traits.fit(traces, "label", part=texts.part, generator=draw, **how)
    scores = traits.score(probe, traces)
    result = traits.evaluate_probe(
        probe,
        scores,
        "label",
        kinds="kind",
        texts=texts.runs["response"],
        nulls=_nulls(texts, traces, how, draws),
        resamples=resamples,
        generator=draw,
    )
    return Cell(probe, result, chosen)


def _nulls(
    texts: Texts, traces: xr.DataArray, how: Mapping[str, Any], draws: int
) -> xr.DataArray | None:
    """Report AUROCs (null, draw) of fits that know nothing, through the same choices.

    Of labels exchanged among the texts of a kind that fit and choose; and of directions with the
    covariance of the rows that fit, turned by their labels.
    """
    if not draws:
        return None
    drawn = []
    for name in NULLS:
        areas = []
        for number in range(draws):
            draw = np.random.default_rng([number, 7])
            asked, label = dict(how), traces["label"].reset_coords(drop=True).astype(float)
            if name == NULLS[0]:
                label = label.copy(data=_exchanged(traces, texts.part.values, draw))
            else:
                asked["method"] = partial(_matched, draw=draw)
            probe = traits.fit(traces, label, part=texts.part, generator=draw, **asked)
            areas.append(_report_area(traits.score(probe, traces), texts.part.values))
        drawn.append(areas)
    return xr.DataArray(drawn, {"null": list(NULLS)}, ("null", "draw"))


def _exchanged(traces: xr.DataArray, part: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    label, kinds = traces["label"].values.astype(float), traces["kind"].values
    for place in itertools.product(("fit", "select"), dict.fromkeys(kinds.tolist())):
        rows = np.flatnonzero((part == place[0]) & (kinds == place[1]))
        label[rows] = draw.permutation(label[rows])
    return label


def _matched(
    values: np.ndarray, label: np.ndarray, weight: np.ndarray, *, draw: np.random.Generator
) -> np.ndarray:
    """A random direction in the covariance of the rows, that points to the positive ones."""
    centred = values - values.mean(axis=0)
    direction = draw.normal(size=len(values)) @ centred
    along = (values[label == 1].mean(axis=0) - values[label == 0].mean(axis=0)) @ direction
    return direction * (1.0 if along >= 0 else -1.0)


def _report_area(scores: xr.DataArray, part: np.ndarray) -> float:
    report = scores.isel(prompt=np.flatnonzero(part == "report"))
    return float(traits.auroc(report, "label"))


def _p(result: xr.Dataset, name: str) -> str:
    return f"{result['null_p'].sel(null=name).item():.3f}" if "null_p" in result else "–"
