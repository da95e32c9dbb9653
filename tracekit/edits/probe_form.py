"""A probe as it acts inside a model: the numbers of its Dataset, at the block that it reads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import require_fit, source
from tracekit.edits.directions import Direction
from tracekit.errors import InputError, InputTypeError, brief
from tracekit.transcripts.pooling import RESPONSE, Pooling, as_read
from tracekit.transcripts.selection import Tokens, read_recorded, recorded

Parts = tuple[torch.Tensor, str, tuple[torch.Tensor, ...]]
# by kind: the variable with the dim `dim`, and what else of it there must be
KINDS: Mapping[str, tuple[str, ...]] = {
    "linear": ("weight", "offset"),
    "attention": ("weight", "query", "offset"),
    "mlp": ("hidden_weight", "hidden_offset", "weight", "offset"),
}


@dataclass(frozen=True)
class ProbeForm:
    """A probe that fits a model: its rows (row, dim) at `layer`, and what ends the score.

    `kind` is "linear" (one row), "attention" (a second row: how much a token counts) or "mlp" (a
    row a hidden unit). `finish` are the numbers that `scored` needs beside them, the offset last;
    `tokens` are those that it pools.
    """

    name: str
    kind: str
    layer: int
    rows: Direction
    finish: tuple[Direction, ...]
    pooling: Pooling
    tokens: Tokens
    threshold: float
    made: dict[str, Any]

    def attention(self, weights: Any) -> Any:
        """The second of `scored`, where it is what pools; `None` for other poolings."""
        return weights if self.pooling.way == "attention" else None

    def parts(self, device: torch.device | None) -> Parts:
        """The numbers on a device (once each), as `scored` takes them."""
        there = [
            one.values if device is None else one.on(device) for one in (self.rows, *self.finish)
        ]
        return there[0], self.kind, tuple(there[1:])

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        whole = hashlib.sha256()
        for numbers in (self.rows, *self.finish):
            whole.update(numbers.values.numpy().tobytes())
        return {"hash": whole.hexdigest()[:16], "kind": self.kind, "layer": self.layer, **self.made}


def threshold_of(probe: xr.Dataset) -> float:
    """The threshold that a probe has.

    Errors: `ValueError` for one that has none.
    """
    _require_one(probe, "probe")
    own = float(probe["threshold"]) if "threshold" in probe else math.nan
    if math.isnan(own):
        raise InputError(
            "A probe's own threshold was asked for, and this one has "
            f"{'NaN' if 'threshold' in probe else 'no such variable'}: none was set. Set it with "
            "traits.set_threshold, or give the score (above= of tk.when, stop= of tk.generate)."
        )
    return own


def scored(values: torch.Tensor, parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """What a probe says of each residual (…, dim), and how much it counts under attention: (…).

    Where a probe has no attention the second is the first. Code that travels to a remote server.
    """
    rows, kind, finish = parts
    products = values.float() @ rows.to(values.device).T
    *hidden, offset = [numbers.to(values.device) for numbers in finish]
    if kind == "mlp":
        scores = (products + hidden[0]).relu() @ hidden[1] + offset
    else:
        scores = products[..., 0] + offset
    return scores, products[..., 1] if kind == "attention" else scores


def read_probe(
    model: TransformersModel,
    probe: Any,
    name: str = "probe",
    *,
    pooling: Pooling | None = None,
    transfer: bool = False,
) -> ProbeForm:
    """The form of one probe (see `traits.fit`), once it is known to fit the model.

    `pooling` takes the place of its own. As for vectors, its width, its layer, and the depth and
    tokenizer of the traces it was fitted on must be the model's; of other weights it needs
    `transfer=True`, which is recorded.

    Errors: `TypeError` for what is no probe; `ValueError` for several targets, for a layer that
    its traces did not have, for another site than the residual stream, for numbers that are not
    finite, for attention as the pooling of a probe without it, and for one that does not fit.
    """
    kind = _kind(probe, name)
    _require_one(probe, name)
    numbers = {one: np.asarray(probe[one].values, np.float32) for one in KINDS[kind]}
    wrong = [one for one, values in numbers.items() if not np.isfinite(values).all()]
    if wrong or probe["layer"].ndim:
        raise InputError(
            f"The probe {name!r} reads layer {probe['layer'].values.tolist()}, and what is not "
            f"finite of it is: {', '.join(wrong) or 'nothing'}. A probe has one layer and finite "
            "numbers; fit it again (traits.fit)."
        )
    across = probe["hidden_weight" if kind == "mlp" else "weight"]
    made = require_fit(model, across.assign_attrs(probe.attrs), transfer=transfer, what="probe")
    _require_layer(probe, name)
    rows, finish = _arranged(numbers, kind)
    text = str(probe.attrs.get("tokens", recorded(RESPONSE)))
    said = as_read(probe.attrs.get("pooling", "mean"), text, _source(probe))
    return ProbeForm(
        name=name,
        kind=kind,
        layer=int(probe["layer"]),
        rows=rows,
        finish=finish,
        pooling=_pooling(pooling or said[0], kind, name),
        tokens=_tokens(said[1], name),
        threshold=float(probe.get("threshold", math.nan)),
        made=made,
    )


def read_probes(
    model: TransformersModel, probes: Any, *, transfer: bool = False
) -> tuple[ProbeForm, ...]:
    """One probe, several, or several by name, each target as a probe of its own.

    A probe alone is named `probe`, those of a list `0`, `1`, …; a target after its name.

    Errors: those of `read_probe`, and `ValueError` for none, or for a name given twice.
    """
    alone = isinstance(probes, xr.Dataset)
    listed = [probes] if alone else probes
    if not isinstance(listed, Mapping):
        listed = {str(n): one for n, one in enumerate(listed)}
    apart: list[tuple[str, Any]] = []
    for name, one in listed.items():
        name = "probe" if alone else str(name)
        targets = one["target"].values if "target" in getattr(one, "dims", ()) else []
        prefix = "" if alone else f"{name}/"
        apart += [(f"{prefix}{target}", one.sel(target=target)) for target in targets]
        apart += [] if len(targets) else [(name, one)]
    names = [name for name, _ in apart]
    if not names or len(set(names)) < len(names):
        raise InputError(f"The probes {names} were asked for; give at least one, each name once.")
    return tuple(read_probe(model, one, name, transfer=transfer) for name, one in apart)


def _kind(probe: Any, name: str) -> str:
    if not isinstance(probe, xr.Dataset) or probe.attrs.get("kind") != "probe":
        raise InputTypeError(
            f"The probe {name!r} is {brief(probe) if hasattr(probe, 'dtype') else type(probe)}, "
            "which traits.fit did not make (no attribute kind='probe'). Give a probe; a vector is "
            "read with capture(vectors=…) or tk.when(vector, above=…)."
        )
    kind = "mlp" if "hidden_weight" in probe else "attention" if "query" in probe else "linear"
    lacking = [one for one in (*KINDS[kind], "layer") if one not in probe.variables]
    if lacking:
        raise InputError(
            f"The probe {name!r} has the variables {sorted(map(str, probe.variables))} and lacks "
            f"{', '.join(lacking)}. Fit it again (traits.fit)."
        )
    return kind


def _pooling(asked: Any, kind: str, name: str) -> Pooling:
    pooling = Pooling.read(asked)
    if pooling.way == "attention" and kind != "attention":
        raise InputError(
            f"The pooling 'attention' was asked for with the {kind} probe {name!r}, which has no "
            "query. Fit one with method='attention', or choose another pooling."
        )
    return pooling


def _tokens(text: str, name: str) -> Tokens:
    try:
        return read_recorded(text)
    except InputError as error:
        raise InputError(
            f"The probe {name!r} pools tokens by a mask of the prompts that it was fitted on "
            f"({text}), which says nothing of others. Fit it with tokens= a slice or a word."
        ) from error


def _require_one(probe: xr.Dataset, name: str) -> None:
    if "target" in probe.dims:
        targets = probe["target"].values.tolist()
        raise InputError(
            f"The probe {name!r} has the targets {targets}, and one is needed here: choose it "
            f"with .sel(target={targets[0]!r})."
        )


def _arranged(numbers: dict[str, np.ndarray], kind: str) -> tuple[Direction, tuple[Direction, ...]]:
    offset = numbers["offset"].reshape(())
    if kind == "mlp":
        finish = (numbers["hidden_offset"], numbers["weight"], offset)
        return Direction(numbers["hidden_weight"]), tuple(map(Direction, finish))
    rows = [numbers["weight"], *([numbers["query"]] if kind == "attention" else [])]
    return Direction(np.stack(rows)), (Direction(offset),)


def _source(probe: xr.Dataset) -> Mapping[str, Any]:
    """The provenance of the traces that it was fitted on, where it is known."""
    return source(probe["offset"].assign_attrs(probe.attrs)) or {}


def _require_layer(probe: xr.Dataset, name: str) -> None:
    made, layer = _source(probe), int(probe["layer"])
    layers, site = made.get("layers"), made.get("site", "residual")
    if layers is not None and layer not in layers:
        raise InputError(
            f"The probe {name!r} reads layer {layer}, and was fitted on traces of the layers "
            f"{layers}. Fit it on that layer, or take the one that it was fitted at."
        )
    if site != "residual":
        raise InputError(
            f"The probe {name!r} was fitted at site={site!r}; inside a model a probe reads the "
            "residual stream. Fit it on a capture of that."
        )
