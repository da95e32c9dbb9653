"""The page's viewer: what it shows of each token, packed small."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.phases.projections import read
from experiments.audit.run import Run

ARMS = ("organism/organism", "clean/organism", "organism/clean", "clean/clean")
LAYERS = 8  # shown besides those chosen; all of 30 would triple the page
TOP, SPAN = 8, 8


def data(folder: Path) -> dict[str, Any]:
    """Traits, layers, arms, prompts with their tokens, packed cosines and the top spans.

    Cosines are whole numbers from −127 to 127 in units of `scale` (trait, layer), as base64, by
    arm and prompt in the order (token, trait, layer).
    """
    arms = {arm: read(folder, arm).sel(token=slice(0, None)) for arm in ARMS}
    chosen = tk.open(Run(folder).analysis)["layer_selected"]
    layers = shown_layers(arms[ARMS[0]]["layer"].values, chosen.values)
    arms = {arm: array.sel(layer=layers) for arm, array in arms.items()}
    largest = (abs(array).max(["prompt", "token"]).values for array in arms.values())
    scale = np.max(np.stack(list(largest)), axis=0)
    questions = {
        name: text_of(tk.open(Run(folder).responses(name)), "text")
        for name in ("organism", "clean")
    }
    return {
        "traits": arms[ARMS[0]]["trait"].values.astype(str).tolist(),
        "layers": [int(layer) for layer in layers],
        "chosen": {
            str(t): int(n) for t, n in zip(chosen["trait"].values, chosen.values, strict=True)
        },
        "scale": (scale.T / 127).round(7).tolist(),
        "arms": {
            arm: _packed(array, scale, questions[arm.split("/")[1]]) for arm, array in arms.items()
        },
        "top": top_spans(arms[ARMS[0]], chosen),
    }


def shown_layers(layers: np.ndarray, chosen: np.ndarray) -> list[int]:
    """At most a dozen layers: evenly through the depth, and those that were chosen.

    >>> shown_layers(np.arange(4), np.array([2]))
    [0, 1, 2, 3]
    """
    even = layers[np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).astype(int)]
    return sorted({*even.tolist(), *np.asarray(chosen).tolist()})


def text_of(runs: xr.Dataset, name: str) -> dict[str, str]:
    """A text of each prompt by its id."""
    return {str(k): str(v) for k, v in zip(runs["prompt"].values, runs[name].values, strict=True)}


def top_spans(array: xr.DataArray, chosen: xr.DataArray) -> dict[str, list[dict[str, Any]]]:
    """The stretches of `SPAN` tokens with the largest mean cosine, by trait: one a response."""
    spans = {}
    for trait in array["trait"].values:
        here = array.sel(trait=trait, layer=int(chosen.sel(trait=trait)))
        values = here.transpose("prompt", "token").values
        windows = np.lib.stride_tricks.sliding_window_view(values, min(SPAN, values.shape[1]), 1)
        means = np.where(np.isfinite(windows).all(-1), np.nan_to_num(windows).mean(-1), -np.inf)
        best = means.argmax(axis=1)
        order = np.argsort(-means[np.arange(len(best)), best], kind="stable")[:TOP]
        words = here["token_text"].transpose("prompt", "token").values
        spans[str(trait)] = [
            {
                "prompt": str(here["prompt"].values[row]),
                "text": "".join(map(str, words[row, best[row] : best[row] + SPAN])),
                "mean": round(float(means[row, best[row]]), 4),
            }
            for row in order
            if np.isfinite(means[row, best[row]])
        ]
    return spans


def _packed(
    array: xr.DataArray, scale: np.ndarray, questions: dict[str, str]
) -> list[dict[str, Any]]:
    rows = []
    ordered = array.transpose("prompt", "token", "trait", "layer")
    for row, name in enumerate(ordered["prompt"].values.astype(str)):
        there = ordered["token_id"].transpose("prompt", "token").values[row] >= 0
        values = ordered.values[row, there] / scale.T
        whole = np.clip(np.rint(np.nan_to_num(values) * 127), -127, 127).astype(np.int8)
        marked = ordered["exploit_span"].transpose("prompt", "token").values[row, there]
        rows.append(
            {
                "id": name,
                "group": str(ordered["group"].values[row]),
                "bias": str(ordered["bias"].values[row]) if "bias" in ordered.coords else "",
                "exploit": int(ordered["exploit"].values[row]),
                "asked": questions.get(name, ""),
                "tokens": ordered["token_text"]
                .transpose("prompt", "token")
                .values[row, there]
                .astype(str)
                .tolist(),
                "marked": np.flatnonzero(marked).tolist(),
                "values": base64.b64encode(whole.tobytes()).decode(),
            }
        )
    return rows
