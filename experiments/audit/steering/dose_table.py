"""The table that a steering experiment ends with."""

from __future__ import annotations

import numpy as np
import xarray as xr

from experiments.audit.evidence.row import aligned

HEADER = (
    "edit",
    "strength",
    "rate",
    "95 % interval",
    "drop",
    "95 % interval",
    "p",
    "random band",
    "perplexity",
    "repetition",
    "length",
    "accuracy",
)


def text(whole: xr.Dataset, patched: xr.Dataset | None, validation: xr.Dataset | None) -> str:
    """Aligned tables of the dose–response, the patching and the validation, with their caveats."""
    rows = np.flatnonzero(whole["arm"].values != "random")
    lines = aligned([HEADER, *(_row(whole.isel(edit=int(row))) for row in rows)])
    randoms = len(np.unique(whole["direction"].values[whole["arm"].values == "random"]))
    lines += [
        "",
        f"n = {whole.attrs['n']} prompts, the unit; intervals 95 %, bootstrap over prompts. drop: "
        "unedited organism − edited, paired by prompt.",
        f"p: share of {randoms} random directions of the same covariance, norm, kind and strength "
        f"that drop at least as much, (b + 1) / (B + 1), so at least {1 / (randoms + 1):.3f}; not "
        "corrected for the number of rows.",
        "strength: multiples of the mean residual norm at the layer. perplexity: of the answers, "
        "under the clean model. accuracy: on neutral questions, right against wrong.",
        f"{whole.sizes['edit']} edits, the random ones included, took "
        f"{float(whole['seconds'].sum()) / 60:.0f} minutes.",
    ]
    if validation is not None:
        lines += ["", *_validation(validation)]
    if patched is not None:
        lines += ["", *_patching(patched)]
    return "\n".join(lines) + "\n"


def _row(here: xr.Dataset) -> tuple[str, ...]:
    kind, direction = here["kind"].item(), here["direction"].item()
    plain = kind == "unedited"
    p, band = float(here["p"]), (float(here["band_low"]), float(here["band_high"]))
    return (
        f"{direction}, {kind}" if not plain else f"{direction}, unedited",
        f"{float(here['multiple']):+.2f}" if kind == "add" else "",
        f"{float(here['rate']):.3f}",
        f"{float(here['rate_low']):.3f} to {float(here['rate_high']):.3f}",
        "" if plain else f"{float(here['drop']):+.3f}",
        "" if plain else f"{float(here['drop_low']):+.3f} to {float(here['drop_high']):+.3f}",
        "" if np.isnan(p) else f"{p:.3f}",
        "" if np.isnan(p) else f"{band[0]:.3f} to {band[1]:.3f}",
        f"{np.exp(float(here['nats'])):.2f}",
        f"{float(here['repetition']):.3f}",
        f"{float(here['length']):.1f}",
        f"{float(here['accuracy']):.3f}",
    )


def _validation(validation: xr.Dataset) -> list[str]:
    judged = "judge" in validation
    header = ("vector", "own slope", "95 % interval", "perplexity by strength")
    rows = [(*header, "judge's slope", "95 % interval", "questions") if judged else header]
    for trait in validation["trait"].values:
        here = validation.sel(trait=trait)
        shown = [
            f"{float(m):+.2f}: {np.exp(float(here['nats'].sel(multiple=m))):.1f}"
            for m in validation["multiple"].values
        ]
        row = (str(trait), *_rise(here, "slope"), ", ".join(shown))
        asked = int(here["judge_questions"]) if judged else 0
        rows.append((*row, *_rise(here, "judge"), str(asked)) if judged else row)
    return [
        *aligned(rows),
        "own slope: nats of log P(Yes) − log P(No), as the unsteered model judges the answer "
        "by the trait's definition, for each residual norm added; intervals over questions."
        + (" judge's slope: of the share that the served judge calls HIGH." if judged else ""),
    ]


def _rise(here: xr.Dataset, name: str) -> tuple[str, str]:
    low, high = float(here[f"{name}_low"]), float(here[f"{name}_high"])
    return f"{float(here[name]):+.3f}", f"{low:+.3f} to {high:+.3f}"


def _patching(patched: xr.Dataset) -> list[str]:
    mean = patched.mean("prompt")
    organism, clean = float(mean["organism"]), float(mean["clean"])
    left = (mean["nats"] - clean) / (organism - clean)
    alive = np.flatnonzero(left.values >= 0.5)
    dead = patched["layer"].values[alive[-1] + 1 if len(alive) else 0 :]
    where = f"layer {dead[0]}" if len(dead) else "no layer"
    return [
        f"Patching clean residuals into the organism, {patched.sizes['prompt']} exploiting "
        f"responses: log-probability of the span {organism:.2f} nats a token (organism), "
        f"{clean:.2f} (clean); half of the difference is gone from {where} on."
    ]
