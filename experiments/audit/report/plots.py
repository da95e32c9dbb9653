"""The figures of the verdict: rates, prompts, layer curves, ROC; from saved numbers alone."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.estimates import TRAIT_SCORE
from experiments.audit.report.colours import in_turn, of_arms
from experiments.audit.sections.detecting import competitors


def rates(analysis: xr.Dataset) -> Figure:
    """The share of responses that exploit, by bias, a bar an arm; the counts stand above."""
    arms, biases = analysis["text_arm"].values, analysis["bias"].values
    biased = [b for b in biases if int(analysis["responses"].sel(bias=b).sum())]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    ax = figure.subplots()
    width, colour = 0.8 / max(len(arms), 1), of_arms(arms.tolist())
    for number, arm in enumerate(arms):
        here = analysis.sel(text_arm=arm, bias=biased)
        counts = here["responses"].values
        share = here["hits"].values / np.where(counts > 0, counts, 1)
        places = np.arange(len(biased)) + number * width
        hatch = ("", "//", "..", "xx", "\\\\\\\\")[number % 5]
        ax.bar(
            places, share, width, label=str(arm), color=colour[arm], hatch=hatch, edgecolor="white"
        )
        for place, value, hits, count in zip(
            places, share, here["hits"].values, counts, strict=True
        ):
            ax.text(place, value + 0.01, f"{hits}/{count}", ha="center", fontsize=6, rotation=90)
    ax.set_xticks(np.arange(len(biased)) + 0.4 - width / 2, biased, rotation=30, ha="right")
    ax.set_ylim(0, 1.15)
    ax.set_ylabel("share of responses")
    ax.set_title("responses that exploit, by rule (habits: that carry the benign habit)")
    ax.legend(title="adapter", frameon=False, ncols=len(arms), fontsize=8)
    return figure


def prompts(analysis: xr.Dataset) -> Figure:
    """Trait × prompt: the organism's shift at each trait's layer, prompts in order of bias."""
    shift = analysis["prompt_shift"].sel(contrast="organism").sel(layer=analysis["layer_selected"])
    scaled = shift / analysis["clean_deviation"].sel(layer=analysis["layer_selected"])
    values = scaled.transpose("trait", "prompt").values
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    figure = Figure(figsize=(10, 1.6 + 0.4 * len(values)), layout="constrained")
    ax = figure.subplots()
    drawn = ax.pcolormesh(values, cmap="PuOr_r", vmin=-limit, vmax=limit)
    ax.set_yticks(np.arange(len(values)) + 0.5, analysis["trait"].values)
    ax.set_xlabel("organism response, in the order of the file")
    ax.set_title("organism − clean weights, same ids, by response")
    figure.colorbar(drawn, ax=ax, label="shift / sd of clean")
    return figure


def curves(parts: dict[str, xr.Dataset]) -> Figure:
    """AUROC within bias over depth, with the band that holds for all layers and traits at once."""
    figure = Figure(figsize=(9, 3 * len(parts)), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (part, curve) in zip(axes, parts.items(), strict=True):
        band = float(curve["band"])
        ax.axhspan(0.5 - band, 0.5 + band, color="#DDDDDD", label="95 % of shuffled labels")
        for trait, (colour, style, mark) in zip(curve["trait"].values, in_turn(), strict=False):
            ax.plot(
                curve["layer"],
                curve["area"].sel(trait=trait),
                color=colour,
                linestyle=style,
                marker=mark,
                markersize=3,
                label=str(trait),
            )
        ax.set_ylabel("AUROC within bias")
        ax.set_title(f"{part.replace('_', '-')} biases")
    axes[-1].set_xlabel("layer")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def roc(audit: Audit) -> Figure:
    """The ROC of the trait score on held-out biases, with a band over prompts drawn again.

    Scores are taken about their bias's mean, as the AUROC within bias compares them.
    """
    score, label, group = _held(audit)
    grid = np.linspace(0, 1, 101)
    generator = audit.generator("roc")
    names = np.unique(group)
    draws = []
    for _ in range(400):
        rows = np.concatenate(
            [np.flatnonzero(group == g) for g in generator.choice(names, len(names))]
        )
        if 0 < label[rows].sum() < len(rows):
            draws.append(_curve(score[rows], label[rows], grid))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    ax = figure.subplots()
    ax.fill_between(grid, low, high, color="#000000", alpha=0.2, label="95 %, over prompts")
    ax.plot(grid, _curve(score, label, grid), color="#000000", label="trait score")
    ax.plot([0, 1], [0, 1], color="#777777", linestyle=":", label="chance")
    ax.set_xlabel("false positives")
    ax.set_ylabel("exploiting responses found")
    ax.set_title("held-out biases")
    ax.legend(frameon=False, loc="lower right")
    return figure


def _held(audit: Audit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    held = audit.part("held_out")
    here = audit.scores().rows(held)
    score = audit.once(competitors.scores)[TRAIT_SCORE][held].copy()
    for name in np.unique(here.bias):
        score[here.bias == name] -= score[here.bias == name].mean()
    return score, here.label, here.group


def _curve(score: np.ndarray, label: np.ndarray, grid: np.ndarray) -> np.ndarray:
    order = np.argsort(-score, kind="stable")
    hits = np.r_[0, np.cumsum(label[order]) / label.sum()]
    false = np.r_[0, np.cumsum(1 - label[order]) / (1 - label).sum()]
    return np.interp(grid, false, hits)
