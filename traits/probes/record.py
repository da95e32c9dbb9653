"""The one reader, and the one writer, of what a probe is: a Dataset that `tk.save` keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage import provenance
from tracekit.storage.provenance import stamp
from tracekit.transcripts.pooling import RESPONSE, as_read
from tracekit.transcripts.selection import Tokens, are_labels, read_recorded, recorded

# what a token's score is made of; with several targets, a dim `target` comes before
DIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "weight": ("dim",),
        "offset": (),
        "query": ("dim",),
        "hidden_weight": ("unit", "dim"),
        "hidden_offset": ("unit",),
    }
)
Parameters = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """A probe as code reads it.

    `parameters` are the arrays by name, each with a leading axis of targets (one, where the probe
    has no `targets`), and `layers` one a target. `source` is the provenance of the traces that it
    was fitted on, empty where it is not known; `tokens` says which tokens were pooled, in words.
    """

    parameters: Parameters
    layers: tuple[int, ...]
    targets: tuple[str, ...] | None
    method: str
    pooling: str
    tokens: str
    classes: tuple[str, str]
    site: str
    source: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`linear`, `attention` or `mlp`: how a token's score is made of its residual."""
        if "query" in self.parameters:
            return "attention"
        return "mlp" if "hidden_weight" in self.parameters else "linear"

    @property
    def digest(self) -> str:
        """A short hash of what its scores are made of."""
        whole = hashlib.sha256(repr((self.layers, sorted(self.parameters))).encode())
        for name in sorted(self.parameters):
            whole.update(self.parameters[name].tobytes())
        return whole.hexdigest()[:16]


def read(dataset: xr.Dataset) -> Probe:
    """A probe's Dataset as a `Probe`.

    Errors: `ValueError` for what is no probe: another kind, variables that are lacking, of other
    dims, or not finite.

    >>> read(probe).method
    'logistic'
    """
    if dataset.attrs.get("kind") != "probe":
        raise InputError(
            "A probe was asked for, and this Dataset has the kind "
            f"{dataset.attrs.get('kind')!r} and the variables {sorted(map(str, dataset))}. "
            "Give what traits.fit made, or tk.open of it."
        )
    lacking = [name for name in ("weight", "offset", "layer") if name not in dataset.variables]
    if lacking:
        raise InputError(
            f"A probe has a weight, an offset and a layer; this one lacks {lacking}. Fit it again."
        )
    targets = dataset["target"].values.tolist() if "target" in dataset["weight"].dims else None
    made = provenance.read(dataset) if "provenance" in dataset.attrs else {}
    source = made.get("source") or {}
    text = str(dataset.attrs.get("tokens", recorded(RESPONSE)))
    pooling, tokens = as_read(str(dataset.attrs.get("pooling", "mean")), text, source)
    return Probe(
        parameters=_parameters(dataset, targets is not None),
        layers=tuple(int(n) for n in np.atleast_1d(dataset["layer"].values)),
        targets=None if targets is None else tuple(map(str, targets)),
        method=str(dataset.attrs.get("method", "unknown")),
        pooling=pooling,
        tokens=tokens,
        classes=tuple(json.loads(dataset.attrs.get("classes", '["0", "1"]'))),
        site=str(made.get("site", "residual")),
        source=source,
    )


def written(
    parameters: Parameters,
    layers: Sequence[int],
    targets: Sequence[str] | None,
    attrs: Mapping[str, str],
    made_with: Mapping[str, Any],
) -> xr.Dataset:
    """The Dataset of parameters with a leading axis of targets; `read` is its inverse.

    The threshold and the calibration are NaN until they are set.

    >>> parameters = {"weight": np.ones((1, 3)), "offset": np.zeros(1)}
    >>> written(parameters, [4], None, {"method": "mine", "pooling": "mean"}, {}).layer.item()
    4
    """
    lead = () if targets is None else ("target",)
    whole = slice(None) if lead else 0
    variables: dict[str, Any] = {}
    for name, values in parameters.items():
        dims = _inner(name, "hidden_weight" in parameters)
        kind = np.float64 if name == "offset" else np.float32
        variables[name] = ((*lead, *dims), np.asarray(values)[whole].astype(kind))
    count = np.full(len(layers), np.nan)
    variables["layer"] = (lead, np.asarray(layers, np.int32)[whole])
    variables["threshold"] = (lead, count[whole])
    variables["threshold_fpr"] = ((), np.nan)
    pair = np.full((len(layers), 2), np.nan)
    variables["calibration"] = ((*lead, "coefficient"), pair[whole])
    coords: dict[str, Any] = {"coefficient": ["slope", "intercept"]}
    if targets is not None:
        coords["target"] = np.array(list(targets), dtype=np.str_)
    made = xr.Dataset(variables, coords, {"kind": "probe", **attrs})
    return stamp(made.set_coords("layer"), made_with)


def tokens_said(tokens: Tokens) -> str:
    """Tokens as a probe has them: those of captures, but lists of labels whole, however long.

    >>> tokens_said([2, 1])
    'labels:1,2'
    """
    if are_labels(tokens):
        return "labels:" + ",".join(map(str, sorted(set(map(int, tokens)))))
    return recorded(tokens)


def tokens_of(text: str) -> Tokens:
    """The tokens that a probe's text names.

    Errors: `ValueError` for a mask, which says nothing of others than its own prompts.

    >>> tokens_of("0:None:None"), tokens_of("labels:1,2"), tokens_of("all")
    (slice(0, None, None), [1, 2], 'all')
    """
    try:
        return read_recorded(text)
    except InputError as error:
        raise InputError(
            f"The probe reads tokens that are known by a hash alone ({text}): a mask of the "
            "prompts that it was fitted on, or more labels than were kept once. Give the tokens "
            "as tokens=."
        ) from error


def _parameters(dataset: xr.Dataset, many: bool) -> dict[str, np.ndarray]:
    found, hidden = {}, "hidden_weight" in dataset
    for name in DIMS:
        if name not in dataset.variables:
            continue
        dims = (*(["target"] if many else []), *_inner(name, hidden))
        if set(dataset[name].dims) != set(dims):
            raise InputError(
                f"A probe's {name} is over {dims}, and this one's over {dataset[name].dims}. "
                "Choose one probe with .sel, or fit it again."
            )
        values = dataset[name].transpose(*dims).values.astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(
                f"{int((~np.isfinite(values)).sum())} of {values.size} values of the probe's "
                f"{name} are not finite: it scores nothing. Fit it again."
            )
        found[name] = values if many else values[None]
    return found


def _inner(name: str, hidden: bool) -> tuple[str, ...]:
    return ("unit",) if name == "weight" and hidden else DIMS[name]
