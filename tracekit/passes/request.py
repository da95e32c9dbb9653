"""What a capture was asked for: checked against the model and the transcripts before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed, require_fit, require_layers
from tracekit.edits.probe_form import ProbeForm
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.attention import EAGER
from tracekit.model.functions.axes import axes_of, require_tokens_first
from tracekit.model.functions.fingerprint import Named, named
from tracekit.passes.reduction import Reducer
from tracekit.storage.provenance import vectors_hash
from tracekit.storage.vector_files.vector_labels import require_site
from tracekit.transcripts.labels import RESERVED
from tracekit.transcripts.selection import Tokens, has_parts, recorded, require_tokens

LOGPROB = "logprob"
Reduce = str | Reducer | Named
Site = sites.Site | Named


@dataclass(frozen=True)
class Asked:
    """What to read of each layer, and what to keep of it."""

    layers: list[int]
    site: sites.Site
    site_name: str
    tokens: Tokens
    reduce: str | Reducer | None
    reduce_name: str | None
    vectors: xr.DataArray | None
    vectors_from: dict[str, Any] | None
    round_to: str | None
    nonfinite: str
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    probes: tuple[ProbeForm, ...] = ()
    parts: tuple[Any, ...] = ()

    @property
    def is_pattern(self) -> bool:
        """Whether it is attention's, whose tokens are queries and keys."""
        return isinstance(self.site, str) and self.site == "pattern"

    @property
    def is_logprob(self) -> bool:
        """Whether it is the log-probabilities of the ids, which the whole forward gives."""
        return isinstance(self.site, str) and self.site == LOGPROB

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims of what comes back."""
        if self.is_logprob:
            return ("prompt", "token")
        if self.probes:
            return ("prompt", "token", "probe")
        last = self.axes if self.vectors is None else (*self.axes[:-1], "trait")
        if self.reduce is not None:
            return ("prompt", "layer", *(("stretch",) if self.parts else ()), *last)
        return ("prompt", "query" if self.is_pattern else "token", "layer", *last)

    @property
    def places(self) -> list[int]:
        """The layer of each value that is kept of a token: each layer, or each probe's."""
        return [probe.layer for probe in self.probes] or self.layers or [0]

    @property
    def places_saved(self) -> list[int]:
        """Where each of `places` is among what a trace saves, which is in the order of layers."""
        return np.argsort(np.argsort(self.places, kind="stable")).tolist()

    @property
    def numbers(self) -> int:
        """How many numbers are kept of a token at a layer; of `pattern`, for each key."""
        if self.is_logprob:
            return 1
        if self.probes:
            return 2 * len(self.probes)
        if self.vectors is None:
            return math.prod(self.sizes)
        return math.prod(self.sizes[:-1]) * self.vectors.sizes["trait"]

    @property
    def keeps_checks(self) -> bool:
        """Whether the number beside each value is kept: a norm, or how much a token counts."""
        return self.vectors is not None or bool(self.probes)

    @property
    def name(self) -> str:
        """The name of what comes back: its site, `projection` or `score`."""
        if self.probes:
            return "score"
        if self.vectors is not None:
            return "projection"
        word, is_function, _ = self.site_name.partition(":")
        return "value" if is_function and (word in RESERVED or word == "<lambda>") else word

    def directions(self, device: torch.device | None) -> dict[int, Any]:
        """Per layer (trait, dim), or its probes' parts, put on the device once a capture."""
        if self.probes:
            at = {n: [one for one in self.probes if one.layer == n] for n in self.layers}
            return {n: [one.parts(device) for one in probes] for n, probes in at.items()}
        if self.vectors is None:
            return {}
        wide = self.vectors.astype(np.float32)
        made = {n: torch.as_tensor(wide.sel(layer=n).values) for n in self.layers}
        return {n: direction.to(device) for n, direction in made.items()}

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        made: dict[str, Any] = {
            "layers": self.layers,
            "site": self.site_name,
            "tokens": recorded(self.tokens),
            "reduce": self.reduce_name,
            "vectors": None if self.vectors is None else _hash(self.vectors),
            "round_to": self.round_to,
        }
        if self.vectors_from is not None:
            made["vectors_from"] = self.vectors_from
        if self.probes:
            made["probes"] = {probe.name: probe.described() for probe in self.probes}
        if callable(self.site) and self.axes != ("dim",):
            made["dims"] = list(self.axes)
        if self.is_pattern:
            made["attn_implementation"] = EAGER
        return made if self.nonfinite == "raise" else {**made, "nonfinite": self.nonfinite}


def ask(
    model: TransformersModel,
    layers: Any,
    site: Site,
    tokens: Tokens,
    reduce: Reduce | None = None,
    vectors: xr.DataArray | None = None,
    round_to: str | None = None,
    nonfinite: str = "raise",
    transfer: bool = False,
    dims: Sequence[str] | None = None,
) -> Asked:
    """The request, once layers, site, vectors and settings are known to fit the model.

    Errors: `ValueError` or `TypeError` for what does not.
    """
    _refuse_settings(reduce, vectors, round_to, nonfinite)
    if transfer and vectors is None:
        raise InputError(
            "transfer=True was given without vectors= or probes=: nothing here was made with "
            "other weights. Leave it out."
        )
    made_from, layers, parts = None, listed(layers), _parts(tokens, reduce)
    if vectors is not None:
        vectors, layers = _fitting(model, vectors, layers)
        made_from = require_fit(model, vectors, transfer=transfer)
    site_name, where = _function("site", site, tuple(sorted(RESERVED)))
    if vectors is not None:
        require_site(vectors, site_name)
    reduce_name, reduced = (
        (None, None) if reduce is None else _function("reduce", reduce, ("mean",))
    )
    axes = axes_of(where, dims, reduce is not None, vectors is not None)
    wanted = sites.check_layers(model, layers, where)
    if callable(where):
        sizes = require_tokens_first(model, wanted, where, None if dims is None else axes)
    else:
        sizes = sites.sizes(model, wanted, where)
    if vectors is not None:
        vectors = vectors.sel(layer=wanted)
    if reduce is not None and isinstance(tokens, str) and tokens == "response":
        tokens = slice(0, None)  # a response's mean is of its own tokens
    return Asked(
        layers=wanted,
        site=where,
        site_name=site_name,
        tokens=tokens,
        reduce=reduced,
        reduce_name=reduce_name,
        vectors=vectors,
        vectors_from=made_from,
        round_to=round_to,
        nonfinite=nonfinite,
        axes=axes,
        sizes=sizes,
        parts=parts,
    )


def ask_logprobs(tokens: Tokens, others: Mapping[str, Any]) -> Asked:
    """The request of log-probabilities; `others` is what a capture of values may ask besides.

    Errors: `ValueError` for anything among `others`.
    """
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InputError(
            f"site='logprob' was asked for with {', '.join(given)}: it is a number a token, of the "
            "whole forward. Leave those out."
        )
    require_tokens(tokens)
    nothing: dict[str, Any] = dict.fromkeys(
        ("reduce", "reduce_name", "vectors", "vectors_from", "round_to")
    )
    return Asked(
        layers=[],
        site=LOGPROB,
        site_name=LOGPROB,
        tokens=tokens,
        nonfinite="raise",
        axes=(),
        sizes=(),
        **nothing,
    )


def _parts(tokens: Tokens, reduce: Reduce | None) -> tuple[Any, ...]:
    """The labels of a mask's parts; none of another selection, which is checked here too."""
    if not has_parts(tokens):
        require_tokens(tokens)
        return ()
    mask = cast(xr.DataArray, tokens)
    if reduce is None:
        raise InputError(
            f"tokens= was given a mask over {mask.dims}, several stretches of a row, without "
            "reduce=. Add reduce='mean' (or a function): each stretch becomes one value."
        )
    for number in range(mask.sizes["stretch"]):
        require_tokens(mask.isel(stretch=number, drop=True))
    labels = (
        mask["stretch"].values if "stretch" in mask.coords else np.arange(mask.sizes["stretch"])
    )
    return tuple(labels.tolist())


def _function(what: str, value: Any, words: tuple[str, ...]) -> tuple[str, Any]:
    return (value, value) if isinstance(value, str) else named(what, value, words)


def _refuse_settings(reduce: Any, vectors: Any, round_to: Any, nonfinite: Any) -> None:
    if reduce is not None and vectors is not None:
        raise InputError(
            "reduce= and vectors= were both given; give one, and reduce the projections after."
        )
    if isinstance(reduce, str) and reduce != "mean":
        raise InputError(f"reduce={reduce!r} was asked for; there is 'mean', or a function.")
    if round_to not in (None, "bfloat16") or nonfinite not in ("raise", "mark"):
        raise InputError(
            f"round_to={round_to!r} and nonfinite={nonfinite!r} were asked for; round_to is "
            "None or 'bfloat16', nonfinite 'raise' or 'mark'."
        )


def _fitting(
    model: TransformersModel, vectors: xr.DataArray, layers: Sequence[int] | None
) -> tuple[xr.DataArray, list[int]]:
    if "trait" not in vectors.dims:
        vectors = vectors.expand_dims(trait=[_trait_of(vectors)])
    if "layer" not in vectors.dims and "layer" in vectors.coords:
        vectors = vectors.expand_dims("layer")
    if set(vectors.dims) != {"trait", "layer", "dim"}:
        raise InputError(
            f"vectors has the dims {vectors.dims}; capture needs (trait, layer, dim). Choose one "
            "extraction with vectors.sel(extraction=…); name a layer with .expand_dims(layer=[12])."
        )
    there = vectors["layer"].values.tolist()
    wanted = [n for n in range(len(model.layers)) if n in there] if layers is None else list(layers)
    require_layers(vectors, wanted)
    return vectors.transpose("trait", "layer", "dim"), wanted


def _hash(vectors: xr.DataArray) -> str:
    traits, layers = vectors["trait"].values.tolist(), vectors["layer"].values.tolist()
    return vectors_hash(traits, layers, vectors.values)


def _trait_of(vector: xr.DataArray) -> str:
    return str(vector["trait"].values) if "trait" in vector.coords else "vector"
