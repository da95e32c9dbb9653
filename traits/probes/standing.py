"""Whether traces are such as a probe was fitted on: width, layers, depth, words, site, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.provenance import read, vectors_hash
from tracekit.transcripts.pooling import as_read
from tracekit.transcripts.selection import WORDS, Selection, read_recorded
from traits.probes.record import Probe, tokens_of

# what has no remedy, in the words of an error
_SAME = {
    "depth": "as many blocks",
    "vocabulary": "the same vocabulary",
    "site": "the same site",
}


def require_fit(probe: Probe, traces: xr.DataArray, transfer: bool = False) -> None:
    """Refuse traces of another model, layer, vocabulary or site than the probe was fitted on.

    Other weights (another model or precision; adapters do not count) need `transfer`. Traces or
    probes without provenance are known by their width and layers alone.

    Errors: `ValueError` naming both sides.
    """
    _require_shape(probe, traces)
    theirs = _made(traces)
    if not probe.source or not theirs:
        return
    mine = {**probe.source, "site": probe.site}
    theirs = {**theirs, "site": theirs.get("site", "residual")}
    for name, words in _SAME.items():
        field = name
        if name == "vocabulary" and (name not in mine or name not in theirs):
            field = "tokenizer"
        both = mine.get(field), theirs.get(field)
        if None not in both and both[0] != both[1]:
            raise InputError(
                f"The probe was fitted on traces of {_shown(mine)} with the {field} {both[0]!r}, "
                f"and these are of {_shown(theirs)} with {both[1]!r}. It needs {words}: capture "
                "such traces, or fit a probe on these."
            )
    weights = {made.get("weights") for made in (mine, theirs)} - {None}
    if len(weights) > 1 and not transfer:
        raise InputError(
            f"The probe was fitted on traces of {_shown(mine)}, and these are of "
            f"{_shown(theirs)}. Pass transfer=True to score them all the same; its threshold may "
            "be another one there."
        )


def require_projections(probe: Probe, projections: xr.DataArray) -> None:
    """Refuse projections that were not made with the probe's own weights, inside the trace.

    Errors: `ValueError` for a probe that is not linear, and for others than
    `tk.capture(…, vectors=probe.weight)` gives.
    """
    made = _made(projections)
    if probe.kind != "linear" or len(set(probe.layers)) > 1 or "trait" not in projections.dims:
        raise InputError(
            f"Scores of projections over {projections.dims} were asked for, of a probe that is "
            f"{probe.kind} at the layers {sorted(set(probe.layers))}. Only a linear probe of one "
            "layer has projections: give traces, or capture with probes=."
        )
    names = projections["trait"].values.tolist() if "trait" in projections.coords else ["vector"]
    layer = np.asarray(probe.layers[:1])
    weight = probe.parameters["weight"][:, None].astype(np.float32)
    due = vectors_hash(names, layer.tolist(), weight) if len(names) == len(weight) else None
    named = probe.targets is None or names == list(probe.targets)
    if due is None or made.get("vectors") != due or not named:
        raise InputError(
            f"The projections are of {names} at the layers "
            f"{np.atleast_1d(projections['layer'].values).tolist()} (hash "
            f"{made.get('vectors')!r}), which are not this probe's weights (hash {due!r}). Make "
            "them with tk.capture(…, vectors=probe.weight), or give traces."
        )


def require_pooled(traces: xr.DataArray, pooling: str, tokens: str | None) -> None:
    """Refuse traces of one value a response that was pooled otherwise, or of other tokens.

    Masks are not compared, which are of their own prompts; nor is what is not known.

    Errors: `ValueError` naming both sides.
    """
    made = _made(traces)
    way, kept = as_read("mean", "", made) if made.get("reduce") is not None else ("mean", None)
    if pooling != way:
        raise InputError(
            f"The pooling {pooling!r} was asked for, and the traces have one value a response, "
            f"{'their mean over tokens' if way == 'mean' else f'captured with reduce={way!r}'}. "
            f"Capture without reduce, or give pooling={way!r}."
        )
    both = [_selected(text) for text in (tokens, kept)]
    if None not in both and both[0] != both[1]:
        raise InputError(
            f"The probe reads the tokens {tokens!r}, and the traces have one value a response, "
            f"pooled over {kept!r}. Capture with tokens= those of the probe, or give those of the "
            "traces as tokens=."
        )


def require_kept(probe: Probe, traces: xr.DataArray) -> None:
    """Refuse traces by token that lack tokens which the probe reads, where what was kept is known.

    Errors: `ValueError` with the first label that is lacking.
    """
    kept, axis = _selected(_made(traces).get("tokens")), traces.coords.get("token")
    if kept is None or axis is None:
        return
    longest = int(traces["prompt_length"].max()) if "prompt_length" in traces.coords else 0
    last = int(axis.max())
    # a response may go on after the last token that is there, unless it was kept as well
    labels = np.arange(min(-longest, int(axis.min())), last + 2)
    there = Selection(kept).labels(labels) & (np.isin(labels, axis.values) | (labels > last))
    lacking = labels[Selection(tokens_of(probe.tokens)).labels(labels) & ~there]
    if len(lacking):
        raise InputError(
            f"The probe reads the tokens {probe.tokens!r}, and the traces, captured with tokens="
            f"{_made(traces)['tokens']!r}, lack {len(lacking)} of these labels (first: "
            f"{lacking[0]}). Capture those of the probe, or name those to score with tokens=."
        )


def _selected(text: str | None) -> Any:
    """The tokens of a recorded text: None where it is a hash, or nothing."""
    try:
        tokens = None if text is None else read_recorded(text)
    except InputError:
        return None
    return WORDS[tokens] if isinstance(tokens, str) else tokens


def _require_shape(probe: Probe, traces: xr.DataArray) -> None:
    width = probe.parameters["hidden_weight" if probe.kind == "mlp" else "weight"].shape[-1]
    if traces.sizes["dim"] != width or not set(traces.dims) <= {"prompt", "token", "layer", "dim"}:
        raise InputError(
            f"The probe has {width} dims, and the traces are over {dict(traces.sizes)}. It scores "
            "(prompt, token, layer, dim) of the model it was fitted on."
        )
    layers = np.atleast_1d(traces["layer"].values).tolist() if "layer" in traces.coords else []
    missing = sorted(set(probe.layers) - set(layers))
    if missing:
        raise InputError(
            f"The probe reads layer {missing[0]}, and the traces have "
            f"{layers or 'no labels of layers'}. Capture that layer, and label it."
        )


def _made(traces: xr.DataArray) -> Mapping[str, Any]:
    return read(traces) if "provenance" in traces.attrs else {}


def _shown(made: Mapping[str, Any]) -> str:
    return f"{made.get('model')} ({made.get('dtype')}, weights {made.get('weights')})"
