"""What `fit` was asked for: traces, layers, poolings, penalties and rows, checked once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.store import open as open_store
from tracekit.transcripts.pooling import Poolable, Pooling
from traits.probes.fitting.choosing import Candidates
from traits.probes.fitting.labels import Labels
from traits.probes.fitting.linear import PENALISED, Function
from traits.probes.fitting.method_table import NETWORKS, require_method
from traits.probes.fitting.rows import Source

Traces = xr.DataArray | str | os.PathLike[str]


@dataclass(frozen=True)
class Asked:
    """How to fit: what `fit` was given, checked."""

    method: str | Function
    candidates: Candidates
    kind: str
    balanced: bool
    generator: np.random.Generator


def opened(traces: Traces) -> xr.DataArray:
    """Traces as they are, or those of a path.

    Errors: `ValueError` for a file of several arrays.

    >>> opened(path).dims
    ('prompt', 'token', 'layer', 'dim')
    """
    if isinstance(traces, xr.DataArray):
        return traces
    found = open_store(traces)
    if not isinstance(found, xr.DataArray):
        raise InputError(
            f"{str(traces)!r} holds {sorted(map(str, found))}; a probe is fitted on the traces "
            "of one capture. Open it, and give one of them."
        )
    return found


def with_layers(traces: xr.DataArray, layers: int | Sequence[int] | None) -> xr.DataArray:
    """The traces at these layers, all of them for None, with a dim `layer`.

    Errors: `ValueError` for traces without labels of layers, and layers that they do not have.

    >>> with_layers(clean, 12).sizes["layer"]
    1
    """
    if "layer" not in traces.coords:
        raise InputError(
            f"A probe remembers its layer, and the traces have the dims {traces.dims} without the "
            "coordinate 'layer'. Label them: traces.assign_coords(layer=…)."
        )
    if "layer" not in traces.dims:
        traces = traces.expand_dims("layer")
    if layers is None:
        return traces
    wanted = [int(n) for n in np.atleast_1d(np.asarray(layers))]
    missing = sorted(set(wanted) - set(traces["layer"].values.tolist()))
    if missing or not wanted:
        raise InputError(
            f"The layers {wanted} were asked for, and the traces have "
            f"{traces['layer'].values.tolist()}. Choose among those."
        )
    return traces.sel(layer=wanted)


def asked_of(
    method: str | Function,
    pooling: Poolable | Sequence[Poolable] | None,
    held: Source,
    inverse_penalty: float | Sequence[float],
    class_weight: str | None,
    rows: str | None,
    labels: Labels,
    generator: np.random.Generator | None,
) -> Asked:
    """The arguments of `fit` as one, each refused where it cannot be.

    Errors: `ValueError` for an unknown method, pooling, kind of rows or class weight, a penalty
    that is not over 0, and what does not go together.
    """
    require_method(method)
    poolings = _poolings(method, pooling, held)
    penalties = sorted({float(one) for one in np.atleast_1d(np.asarray(inverse_penalty))})
    if not penalties or not min(penalties) > 0:
        raise InputError(
            f"inverse_penalty={inverse_penalty!r} was asked for; it is a number over 0, "
            "scikit-learn's C, or several to choose among."
        )
    if callable(method) or method not in (*PENALISED, *NETWORKS):
        penalties = [np.nan]
    if class_weight not in ("balanced", None):
        raise InputError(f"class_weight={class_weight!r} was asked for; it is 'balanced' or None.")
    draw = np.random.default_rng(0) if generator is None else generator
    candidates = Candidates(held.layers, poolings, penalties)
    kind = _kind(method, rows, held, labels)
    return Asked(method, candidates, kind, class_weight == "balanced", draw)


def _poolings(
    method: str | Function, pooling: Poolable | Sequence[Poolable] | None, held: Source
) -> list[Pooling]:
    given: Sequence[Any] = pooling if isinstance(pooling, list | tuple) else [pooling]
    default = "attention" if method == "attention" else "mean"
    made = [Pooling.read(default if one is None else one) for one in given]
    wrong = [one for one in made if (one.way == "attention") != (method == "attention")]
    if wrong or not made:
        raise InputError(
            f"The pooling {str(wrong[0]) if wrong else '()'!r} was asked for with the method "
            f"{method!r}; an attention probe has its own, 'attention', and no other probe has it."
        )
    if held.flat and [str(one) for one in made] != ["mean"]:
        raise InputError(
            f"The poolings {[str(one) for one in made]} were asked for, and the traces have no "
            "tokens (one value a response). Capture without reduce, or take 'mean'."
        )
    return made


def _kind(method: str | Function, rows: str | None, held: Source, labels: Labels) -> str:
    by_token = labels.token is not None or (method in NETWORKS and not held.flat)
    default = "tokens" if by_token else "mean"
    kind = default if rows is None else rows
    wrong = kind not in ("mean", "tokens") or (kind == "tokens" and held.flat)
    if wrong or (kind == "mean" and labels.token is not None):
        raise InputError(
            f"rows={rows!r} was asked for with labels over "
            f"{'(prompt)' if labels.token is None else '(prompt, token)'} and traces "
            f"{'without' if held.flat else 'with'} tokens. 'mean' is a row a response, 'tokens' a "
            "row a token, as labelled tokens need."
        )
    return kind
