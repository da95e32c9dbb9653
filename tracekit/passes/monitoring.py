"""Scores of probes inside the trace: what is asked, scores of tokens, of responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.probe_form import ProbeForm, read_probes
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.passes.request import Asked
from tracekit.transcripts.pooling import pooled
from tracekit.transcripts.selection import WORDS, Selection, Tokens, require_tokens

Probes = xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset]
# what a score has beside it: each probe's own, and what each response has
LABELS = ("layer", "pooling", "threshold", "pooled")


def ask_probes(
    model: TransformersModel,
    probes: Any,
    tokens: Tokens,
    nonfinite: str,
    transfer: bool,
    others: Mapping[str, Any],
) -> Asked:
    """The request of a capture of scores; `others` is what a capture of values may ask besides.

    Errors: those of `read_probes`, and `ValueError` for anything among `others`.
    """
    plain = {"site": "residual"}
    given = [name for name, value in others.items() if value is not plain.get(name)]
    if given or nonfinite not in ("raise", "mark"):
        raise InputError(
            f"capture was given probes= and {', '.join(given) or f'nonfinite={nonfinite!r}'}: a "
            "probe reads the residual stream at its own layer, and gives a number a token. Leave "
            "those out, or capture twice."
        )
    require_tokens(tokens)
    forms = read_probes(model, probes, transfer=transfer)
    if isinstance(tokens, str) and tokens == "response" and any(map(_reads_before, forms)):
        tokens = "all"  # what a probe pools is kept, unless other tokens are asked for
    return Asked(
        layers=sites.check_layers(model, sorted({form.layer for form in forms}), "residual"),
        site="residual",
        site_name="residual",
        tokens=tokens,
        reduce=None,
        reduce_name=None,
        vectors=None,
        vectors_from=None,
        round_to=None,
        nonfinite=nonfinite,
        axes=(),
        sizes=(),
        probes=forms,
    )


def _reads_before(form: ProbeForm) -> bool:
    """Whether a probe pools tokens before those of the word "response"."""
    tokens = WORDS[form.tokens] if isinstance(form.tokens, str) else form.tokens
    first = tokens.start if isinstance(tokens, slice) else min(tokens)
    return first is None or first < WORDS["response"].start


def with_scores(
    frame: xr.Dataset, asked: Asked, scores: np.ndarray, weights: np.ndarray
) -> xr.Dataset:
    """The labels with each probe's own, and `pooled` (prompt, probe) of (prompt, token, probe).

    `weights` is how much each token counts where attention pools.
    """
    made = []
    for n, form in enumerate(asked.probes):
        said = Selection(form.tokens).labels(frame["token"].values)
        attention = form.attention(weights[:, said, n])
        made.append(pooled(scores[:, said, n], form.pooling, attention))
    return frame.assign_coords(
        {
            "layer": ("probe", np.array([form.layer for form in asked.probes], np.int32)),
            "pooling": ("probe", [str(form.pooling) for form in asked.probes]),
            "threshold": ("probe", np.array([form.threshold for form in asked.probes])),
            "pooled": (("prompt", "probe"), np.stack(made, 1).astype(np.float32)),
        }
    )
