"""Stories that a model goes on with, answers that it reads: its mean states over their tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputTypeError
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of, subset
from traits.contrast_sets.chats import ChatSet
from traits.contrast_sets.contrast import ContrastSet

ROWS = 64  # captured in full at once, before their windows are averaged


def elicit(
    model: Any, contrast: ContrastSet, *, pairs: int = 0, continuation: int = 0
) -> xr.Dataset:
    """Both sides' stories as raw completions, with what the model itself continues them with.

    The first `pairs` pairs (0: all), each followed by at most `continuation` greedy tokens; ids
    are kept as generated. Returns transcripts (prompt, token) with `label` and `group`.

    >>> runs = elicit(model, contrast, pairs=2)
    >>> runs.sizes["prompt"]
    4
    """
    if not isinstance(contrast, ContrastSet):
        raise InputTypeError(
            f"elicit was given {contrast!r}, and takes a contrast set. Give "
            "traits.load_contrast(…) of its name or folder."
        )
    prompts = contrast.prompts()
    kept = set(list(dict.fromkeys(prompt.group for prompt in prompts))[: pairs or None])
    wanted = [prompt for prompt in prompts if prompt.group in kept]
    runs = tk.encode(model, wanted, template="raw")
    return tk.generate(model, runs, max_new_tokens=continuation) if continuation else runs


def window_traces(model: Any, runs: xr.Dataset, windows: Mapping[str, slice]) -> xr.DataArray:
    """The mean over each token window of each transcript: (prompt, window, layer, dim).

    `windows` maps a name to a slice of token labels, ends included; a row that is shorter gives
    the mean over the tokens it has there. All layers, residual units, float32.

    >>> window_traces(model, runs, {"last": slice(-1, -1)}).sizes["window"]
    1
    """
    whole = slice(
        min(cut.start for cut in windows.values()), max(cut.stop for cut in windows.values())
    )
    names, made = ids_of(runs), []
    for start in range(0, len(names), ROWS):
        rows = subset(runs, prompt=names[start : start + ROWS])
        traces = tk.capture(model, rows, tokens=whole, progress=False)
        means = [traces.sel(token=cut).mean("token", skipna=True) for cut in windows.values()]
        made.append(xr.concat(means, xr.Variable("window", np.array(list(windows), np.str_))))
    joined = xr.concat(made, "prompt", combine_attrs="drop").transpose("prompt", "window", ...)
    kept = {k: v for k, v in read(traces).items() if k not in ("tokens", "batches")}
    cuts = {name: f"{cut.start}:{cut.stop}" for name, cut in windows.items()}
    return stamp(joined, {**kept, "ids": read(runs)["ids"], "windows": cuts, "rows_at_once": ROWS})


def chat_traces(model: Any, chats: ChatSet) -> xr.DataArray:
    """The mean over each answer's tokens, read and not written by the model: (prompt, layer, dim).

    All layers, residual units, float32; the coordinates `label`, `group` and `writer` are those of
    `ChatSet.prompts`. Errors: `ValueError` for a model without a chat template.

    >>> chat_traces(model, chats).dims
    ('prompt', 'layer', 'dim')
    """
    runs = tk.encode(model, chats.prompts())
    return tk.capture(model, runs, tokens=slice(0, None), reduce="mean", progress=False)
