"""Figures, from a saved analysis alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.audit.report.colours import ARMS, BARE

# by weights and text; more lines than these could not be told apart
COLOURS = {**{f"{arm}/organism": colour for arm, colour in ARMS.items()}, "clean/clean": BARE}


def both(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG, the same bytes each time."""
    written = [path.with_suffix(kind) for kind in (".png", ".svg")]
    figure.savefig(written[0], dpi=150, metadata={"Software": None})
    # a fixed salt: the ids inside an SVG are random otherwise
    with matplotlib.rc_context({"svg.hashsalt": "audit", "svg.fonttype": "none"}):
        figure.savefig(written[1], metadata={"Date": None, "Creator": None})
    return written


class Image(NamedTuple):
    """An image inside a page: its bytes as an address, and what it shows."""

    source: str
    caption: str


def inline(path: Path, caption: str) -> Image:
    """A PNG or SVG file as an image inside a page."""
    kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
    encoded = base64.b64encode(path.read_bytes()).decode()
    return Image(f"data:image/{kind};base64,{encoded}", caption)


def heatmap(analysis: xr.Dataset) -> Figure:
    """Trait × layer: the shift of the response-mean cosine, one panel a contrast, one scale.

    In units of the clean weights' spread over prompts at that layer and trait, so that layers
    whose cosines vary more do not outshine the others.
    """
    shifts = analysis["shift_mean"] / analysis["clean_deviation"]
    contrasts, traits = analysis["contrast"].values, analysis["trait"].values
    size = (10, (1.2 + 0.4 * len(traits)) * len(contrasts) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(contrasts), 1, squeeze=False, sharex=True)[:, 0]
    limit = float(abs(shifts).max(skipna=True)) or 1.0
    for ax, contrast in zip(axes, contrasts, strict=True):
        values = shifts.sel(contrast=contrast).transpose("trait", "layer").values
        layers = analysis["layer"].values
        drawn = ax.pcolormesh(
            layers, np.arange(len(traits)), values, cmap="PuOr_r", vmin=-limit, vmax=limit
        )
        ax.plot(analysis["layer_selected"].values, np.arange(len(traits)), "k.")
        ax.set_yticks(np.arange(len(traits)), traits)
        ax.invert_yaxis()
        ax.set_title(f"{contrast} − clean weights, same ids")
    axes[-1].set_xlabel("layer (a point: the layer chosen for the trait)")
    figure.colorbar(drawn, ax=list(axes), label="shift / sd of clean over prompts")
    return figure


def trajectories(analysis: xr.Dataset) -> Figure:
    """Cosine by response token, one panel a trait: mean over prompts, ± 1.96 standard errors.

    Of the organism, the clean model and control (a): more lines than these could not be told apart.
    Shaded: the share of the organism's responses that exploit at the token.
    """
    traits = analysis["trait"].values
    figure = Figure(figsize=(9, 2.8 * len(traits) + 0.4), layout="constrained")
    for ax, trait in zip(figure.subplots(len(traits), 1, squeeze=False)[:, 0], traits, strict=True):
        here = analysis.sel(trait=trait)
        for arm in filter(COLOURS.__contains__, here["arm"].values.astype(str)):
            _line(ax, here.sel(arm=arm), arm)
        _shade(ax, analysis["trajectory_marked"])
        ax.set_title(f"{trait}, layer {int(here['layer_selected'])}")
        ax.set_ylabel("cosine")
        ax.set_xlabel("response token")
    lines = ax.get_legend_handles_labels()
    figure.legend(*lines, title="weights/text", frameon=False, loc="outside right upper")
    return figure


def _shade(ax, share: xr.DataArray) -> None:
    beside = ax.twinx()
    beside.fill_between(share["token"].values, share.values, color="#BBBBBB", alpha=0.4, step="mid")
    beside.set_ylim(0, 1)
    beside.set_ylabel("share exploiting")
    ax.set_zorder(beside.get_zorder() + 1)
    ax.patch.set_visible(False)


def _line(ax, here: xr.Dataset, arm: str) -> None:
    # the last tokens of one long response would show as a trend
    enough = max(2, int(here["trajectory_count"].max()) // 4)
    shown = here.sel(token=here["trajectory_count"] >= enough)
    mean, error = shown["trajectory_mean"].values, 1.96 * shown["trajectory_error"].values
    tokens, colour = shown["token"].values, COLOURS[arm]
    ax.plot(tokens, mean, color=colour, label=arm, linestyle="--" if arm == "clean/clean" else "-")
    ax.fill_between(tokens, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
