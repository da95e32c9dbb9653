"""Stories that a model goes on with, answers that it reads: its mean states over their tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputTypeError
from tracekit.passes.prompts_once import may_share
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.selection import Selection, kept_tokens
from traits.contrast_sets.chats import ChatSet
from traits.contrast_sets.common_beginnings import as_prompts
from traits.contrast_sets.contrast import ContrastSet


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
    the mean over the tokens it has there, NaN where it has none. All layers, residual units,
    float32. What the rows of a `group` (twins) begin with is read once, where the model reads on
    behind it as in a whole forward. Errors: `ValueError` for a row without a token in any window.

    >>> window_traces(model, runs, {"last": slice(-1, -1)}).sizes["window"]
    1
    """
    whole = slice(
        min(cut.start for cut in windows.values()), max(cut.stop for cut in windows.values())
    )
    kept_tokens(runs, whole)
    real = runs.token_id.transpose("prompt", "token").values >= 0
    axis = runs.token.values
    kept = real[:, None] & np.stack([Selection(cut).labels(axis) for cut in windows.values()])
    # edits count tokens from the prompt's end, and go with whole rows
    once = as_prompts(runs, kept) if may_share(model) else None
    read_as, kept = (runs, kept) if once is None else once
    of_rows = {name: read_as[name] for name in ("prompt", "token", "prompt_length")}
    named = {**of_rows, "stretch": np.array(list(windows), np.str_)}
    mask = xr.DataArray(kept, dims=("prompt", "stretch", "token"), coords=named)
    traces = tk.capture(
        *(model, read_as),
        tokens=mask,
        reduce="mean",
        share_prompts=once is not None,
        progress=False,
    )
    means = traces.rename(stretch="window").transpose("prompt", "window", "layer", "dim")
    means = means.assign_coords(prompt_length=runs["prompt_length"])
    said = {k: v for k, v in read(traces).items() if k not in ("tokens", "reduce")}
    cuts = {name: f"{cut.start}:{cut.stop}" for name, cut in windows.items()}
    return stamp(means, {**said, "windows": cuts})


def chat_traces(model: Any, chats: ChatSet) -> xr.DataArray:
    """The mean over each answer's tokens, read and not written by the model: (prompt, layer, dim).

    All layers, residual units, float32; the coordinates `label`, `group` and `writer` are those of
    `ChatSet.prompts`. Errors: `ValueError` for a model without a chat template.

    >>> chat_traces(model, chats).dims
    ('prompt', 'layer', 'dim')
    """
    runs = tk.encode(model, chats.prompts())
    return tk.capture(
        *(model, runs), tokens=slice(0, None), reduce="mean", share_prompts=True, progress=False
    )
