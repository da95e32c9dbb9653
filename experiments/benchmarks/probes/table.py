"""One source's table: methods × poolings, each chosen on its own part, judged on the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
import traits
from experiments.benchmarks.probes.texts import Texts
from traits.probes.judging.null_fits import NULLS

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
        nulls=traits.probe_nulls(probe, traces, "label", draws=draws, generator=draw)
        if draws
        else None,
        resamples=resamples,
        generator=draw,
    )
    return Cell(probe, result, chosen)


def _p(result: xr.Dataset, name: str) -> str:
    return f"{result['null_p'].sel(null=name).item():.3f}" if "null_p" in result else "–"
