"""Figures of the evaluation of trait vectors, from the saved evaluation alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by the colour-blind and in print
REPORT, SELECT = "#0072B2", "#999999"
NULLS = {"shuffled pairs": "#E69F00", "placebo": "#D55E00", "covariance-matched": "#009E73"}

# so far from the middle of the colour scale, black text cannot be read
DARK = 0.35


def draw(evaluation: xr.Dataset, folder: Path) -> list[Path]:
    """Write the figures of an evaluation into the folder; returns their paths."""
    figures = {
        "evaluation_layers": layers(evaluation),
        "evaluation_transfer": transfer(evaluation),
        "evaluation_cosine": cosines(evaluation),
    }
    if "chat_estimate" in evaluation:
        figures["evaluation_chat"] = chats(evaluation)
    paths = [(folder / name).with_suffix(".png") for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        figure.savefig(path, dpi=150, metadata={"Software": None})
    return paths


def layers(evaluation: xr.Dataset) -> Figure:
    """AUROC by layer with its interval, and the 95 % of each null, one panel a trait."""
    traits = evaluation["trait"].values
    columns = min(3, len(traits))
    rows = -(-len(traits) // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, trait in zip(axes, traits, strict=False):
        _layers(ax, evaluation.sel(trait=trait))
    for ax in axes[len(traits) :]:
        ax.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def transfer(evaluation: xr.Dataset) -> Figure:
    """The AUROC of each trait's vector (row) on each contrast set (column)."""
    values = evaluation["transfer"].transpose("trait", "set")
    return _matrix(values, "AUROC on unseen pairs", (0.0, 1.0), "vector of", "contrast set")


def cosines(evaluation: xr.Dataset) -> Figure:
    """The cosine between the traits' vectors at the layer that is chosen most centrally."""
    chosen = evaluation["layer_selected"].sel(extraction=evaluation.attrs["method"])
    layer = int(np.median(chosen.values))
    values = evaluation["cosine"].sel(layer=layer).transpose("trait", "trait_other")
    title = f"cosine at layer {layer}, the median of those chosen"
    return _matrix(values, title, (-1.0, 1.0), "vector of", "vector of")


def chats(evaluation: xr.Dataset) -> Figure:
    """AUROC on instructed chats with its interval, beside the 95 % of each null."""
    traits = evaluation["trait"].values
    figure = Figure(figsize=(7, 0.4 * len(traits) + 1.4), layout="constrained")
    ax, places = figure.subplots(), np.arange(len(traits))
    at = evaluation.sel(measure="auroc")
    low, middle, high = (at[f"chat_{name}"].values for name in ("low", "estimate", "high"))
    ax.hlines(places, low, high, color=REPORT)
    ax.plot(middle, places, "o", color=REPORT, label="AUROC, does it obey? 95 %")
    bands = evaluation["chat_null_quantile"].sel(level=0.95)
    for name in bands["null"].values:
        ax.plot(
            bands.sel(null=name), places, "|", ms=14, color=NULLS[str(name)], label=f"{name} 95 %"
        )
    ax.axvline(0.5, color="black", linewidth=0.5)
    ax.set_yticks(places, traits)
    ax.invert_yaxis()
    ax.set_xlabel("AUROC")
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def _layers(ax: Axes, one: xr.Dataset) -> None:
    at = one.sel(extraction=one.attrs["method"])
    numbers, name = one["layer"].values, str(one["trait"].item())
    ax.fill_between(
        numbers, at["auroc_low"], at["auroc_high"], color=REPORT, alpha=0.15, linewidth=0
    )
    ax.plot(numbers, at["auroc"], color=REPORT, label="report pairs, 95 %")
    ax.plot(numbers, at["auroc_select"], color=SELECT, linestyle=":", label="selection pairs")
    for null in one["null"].values:
        band = one["null_curve"].sel(null=null, level=0.95)
        ax.plot(numbers, band, "--", color=NULLS[str(null)], label=f"{null} 95 %")
    ax.axvline(int(at["layer_selected"]), color="black", linewidth=0.7)
    ax.axhline(0.5, color="black", linewidth=0.5)
    ax.set_title(name + ("" if int(one["passed"]) else " (failed)"), fontsize=10)
    ax.set_xlabel("layer (line: chosen)")
    ax.set_ylabel("AUROC")


def _matrix(
    values: xr.DataArray, title: str, limits: tuple[float, float], down: str, across: str
) -> Figure:
    rows, columns = values.shape
    size = (0.45 * columns + 3.5, 0.4 * rows + 2.8)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    drawn = ax.imshow(values.values, cmap="PuOr", vmin=limits[0], vmax=limits[1], aspect="auto")
    for (i, j), value in np.ndenumerate(values.values):
        at = (value - limits[0]) / (limits[1] - limits[0])
        color = "white" if abs(at - 0.5) > DARK else "black"
        said = f"{value:.2f}".replace("0.", ".")
        ax.text(j, i, said, ha="center", va="center", fontsize=6, color=color)
    ax.set_xticks(np.arange(columns), values[values.dims[1]].values, rotation=90, fontsize=8)
    ax.set_yticks(np.arange(rows), values["trait"].values, fontsize=8)
    ax.set_xlabel(across)
    ax.set_ylabel(down)
    figure.colorbar(drawn, ax=ax, label=title)
    return figure
