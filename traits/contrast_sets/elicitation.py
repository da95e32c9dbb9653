"""Stories that a model goes on with, answers that it reads: its mean states over their tokens."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputError, InputTypeError
from tracekit.passes.beginnings.planning import shared
from tracekit.passes.beginnings.prompts_once import may_share
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import Selection
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


def window_traces(
    model: Any,
    runs: xr.Dataset,
    windows: Mapping[str, slice],
    *,
    token_budget: int | None = None,
    share_prompts: bool = True,
) -> xr.DataArray:
    """The mean over each token window of each transcript: (prompt, window, layer, dim).

    `windows` maps a name to a slice of token labels, ends included; a row that is shorter gives
    the mean over the tokens it has there, NaN where it has none. All layers, residual units,
    float32. What the rows of a `group` (twins) begin with is read once, where the model reads on
    behind it as in a whole forward; whole rows, as an edited model reads them, are compared with
    such as were read with `share_prompts=False`, in batches of the same `token_budget`.

    Errors: `ValueError` for a row without a token in any window, and those of `tk.capture`.

    >>> window_traces(model, runs, {"last": slice(-1, -1)}).sizes["window"]
    1
    """
    real = runs.token_id.transpose("prompt", "token").values >= 0
    chosen = [Selection(cut).labels(runs.token.values) for cut in windows.values()]
    kept = real[:, None] & np.stack(chosen)
    _refuse_empty(runs, windows, kept)
    capture = partial(tk.capture, model, reduce="mean", token_budget=token_budget, progress=False)
    # edits count tokens from the prompt's end, and go with whole rows
    once = as_prompts(runs, kept) if share_prompts and may_share(model) else None
    means, said = None, {}
    if once is not None:
        mask = _mask(*once, windows)
        means = capture(once[0], tokens=mask, share_prompts=True, nonfinite="mark")
        if shared(read(means)["batches"]):
            # which rows go together does not say where their prompts end
            ends = once[0]["prompt_length"].values.tolist()
            said = {"plan": digest([read(means)["batches"]["plan"], ends])}
    if means is None or not _finite(means, kept):
        whole = runs[["token_id"]].reset_coords(drop=True)
        whole = whole.assign_coords(prompt_length=runs["prompt_length"].variable)
        # where a value is not finite, this says which token it is of
        means, said = capture(whole.assign_attrs(runs.attrs), tokens=_mask(runs, kept, windows)), {}
    labels = {name: label for name, label in runs.coords.items() if label.dims == ("prompt",)}
    made = {k: v for k, v in read(means).items() if k not in ("tokens", "reduce", "nonfinite")}
    made["batches"] = {**made["batches"], **said}
    made["windows"] = {name: f"{cut.start}:{cut.stop}" for name, cut in windows.items()}
    means = means.rename(stretch="window").transpose("prompt", "window", "layer", "dim")
    return stamp(means.assign_coords(labels), made)


def _refuse_empty(runs: xr.Dataset, windows: Mapping[str, slice], kept: np.ndarray) -> None:
    there = np.asarray(kept.any((1, 2)))
    if not there.all():
        shown = ", ".join(f"{name} ({cut.start} to {cut.stop})" for name, cut in windows.items())
        axis = runs.token.values
        raise InputError(
            f"{int((~there).sum())} rows, such as {ids_of(runs)[int(there.argmin())]!r}, have no "
            f"token in any of the windows {shown}; labels are within {axis.min()} to {axis.max()}. "
            "Leave those rows out, or widen a window: slice(-1, -1) is the last prompt token."
        )


def _finite(means: xr.DataArray, kept: np.ndarray) -> bool:
    values = means.transpose("prompt", "stretch", "layer", "dim").values
    return bool((np.isfinite(values).all((2, 3)) | ~kept.any(2)).all())


def _mask(runs: xr.Dataset, kept: np.ndarray, windows: Mapping[str, slice]) -> xr.DataArray:
    # with its ids a mask is known for its transcripts' own
    named: dict[str, Any] = {n: runs[n].variable for n in ("prompt", "token", "token_id")}
    named["stretch"] = np.array(list(windows), np.str_)
    return xr.DataArray(kept, dims=("prompt", "stretch", "token"), coords=named)


def chat_traces(
    model: Any, chats: ChatSet, *, token_budget: int | None = None, share_prompts: bool = True
) -> xr.DataArray:
    """The mean over each answer's tokens, read and not written by the model: (prompt, layer, dim).

    All layers, residual units, float32; the coordinates `label`, `group` and `writer` are those of
    `ChatSet.prompts`. A message is read once for both answers, as in `window_traces`. Errors:
    `ValueError` for a model without a chat template.

    >>> chat_traces(model, chats).dims
    ('prompt', 'layer', 'dim')
    """
    runs = tk.encode(model, chats.prompts())
    return tk.capture(
        *(model, runs),
        tokens=slice(0, None),
        reduce="mean",
        token_budget=token_budget,
        share_prompts=share_prompts,
        progress=False,
    )
