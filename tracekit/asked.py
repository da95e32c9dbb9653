"""What a capture was asked for: checked against the model and the transcripts before it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from nnsight import TransformersModel

from tracekit import sites
from tracekit.fit import require_fit, require_layers
from tracekit.functions import site_name
from tracekit.keep import Reducer
from tracekit.provenance import digest
from tracekit.transcript import ids_of

Reduce = str | Reducer


@dataclass(frozen=True)
class Asked:
    """What to read of each layer, and what to keep of it."""

    layers: list[int]
    site: sites.Site
    tokens: str | slice
    reduce: Reduce | None
    vectors: xr.DataArray | None
    vectors_from: dict[str, Any] | None
    round_to: str | None
    nonfinite: str

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims of what comes back."""
        if self.reduce is not None:
            return ("prompt", "layer", "dim")
        return ("prompt", "token", "layer", "dim" if self.vectors is None else "trait")

    @property
    def name(self) -> str:
        """The name of what comes back: its site, or `projection`."""
        if self.vectors is not None:
            return "projection"
        return site_name(self.site).split(":")[0].replace("<lambda>", "value")

    def directions(self, device: torch.device | None) -> dict[int, torch.Tensor]:
        """Per layer (trait, dim), put on the device once a capture; none without vectors."""
        if self.vectors is None:
            return {}
        wide = self.vectors.astype(np.float32)
        made = {n: torch.as_tensor(wide.sel(layer=n).values) for n in self.layers}
        return {n: direction.to(device) for n, direction in made.items()}

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        named = self.tokens
        if isinstance(named, slice):
            named = f"{named.start}:{named.stop}:{named.step}"
        made: dict[str, Any] = {
            "layers": self.layers,
            "site": site_name(self.site),
            "tokens": named,
            "reduce": None if self.reduce is None else site_name(self.reduce),
            "vectors": None if self.vectors is None else _hash(self.vectors),
            "round_to": self.round_to,
        }
        if self.vectors_from is not None:
            made["vectors_from"] = self.vectors_from
        return made if self.nonfinite == "raise" else {**made, "nonfinite": self.nonfinite}


def ask(
    model: TransformersModel,
    layers: Sequence[int] | None,
    site: sites.Site,
    tokens: str | slice,
    reduce: Reduce | None = None,
    vectors: xr.DataArray | None = None,
    round_to: str | None = None,
    nonfinite: str = "raise",
    transfer: bool = False,
) -> Asked:
    """The request, once layers, site, vectors and settings are known to fit the model.

    Errors: `ValueError` for what does not.
    """
    _refuse_settings(reduce, vectors, round_to, nonfinite)
    made_from = None
    if vectors is not None:
        vectors, layers = _fitting(model, vectors, layers)
        made_from = require_fit(model, vectors, transfer=transfer)
    every = range(len(model.layers))
    wanted = sites.check_layers(model, every if layers is None else layers, site)
    if vectors is not None:
        vectors = vectors.sel(layer=wanted)
    return Asked(wanted, site, tokens, reduce, vectors, made_from, round_to, nonfinite)


def kept_tokens(transcripts: xr.Dataset, tokens: str | slice) -> Bool[np.ndarray, "prompt token"]:
    """Which (prompt, token) places to keep.

    Errors: `ValueError` for tokens that are no labels, or that leave a prompt with nothing.
    """
    axis = transcripts.token.values
    if tokens == "response":
        chosen = axis >= -1
    elif tokens == "all":
        chosen = np.ones_like(axis, bool)
    elif isinstance(tokens, slice):
        chosen = np.isin(axis, transcripts.token.sel(token=tokens).values)
    else:
        raise ValueError(
            f"tokens={tokens!r} was asked for; there are 'response', 'all', and slices of token "
            "labels such as slice(0, 4) (both ends included)."
        )
    kept = (transcripts.token_id.transpose("prompt", "token").values >= 0) & chosen
    empty = [name for name, row in zip(ids_of(transcripts), kept, strict=True) if not row.any()]
    if empty:
        raise ValueError(
            f"tokens={tokens!r} keeps nothing of {len(empty)} prompts, such as {empty[0]!r}, "
            f"whose labels are within {axis.min()} to {axis.max()}. Leave them out or widen it."
        )
    return kept


def _refuse_settings(reduce: Any, vectors: Any, round_to: Any, nonfinite: Any) -> None:
    if reduce is not None and vectors is not None:
        raise ValueError(
            "reduce= and vectors= were both given; give one, and reduce the projections after."
        )
    if isinstance(reduce, str) and reduce != "mean":
        raise ValueError(f"reduce={reduce!r} was asked for; there is 'mean', or a function.")
    if round_to not in (None, "bfloat16") or nonfinite not in ("raise", "mark"):
        raise ValueError(
            f"round_to={round_to!r} and nonfinite={nonfinite!r} were asked for; round_to is "
            "None or 'bfloat16', nonfinite 'raise' or 'mark'."
        )


def _fitting(
    model: TransformersModel, vectors: xr.DataArray, layers: Sequence[int] | None
) -> tuple[xr.DataArray, list[int]]:
    if "trait" not in vectors.dims:
        vectors = vectors.expand_dims(trait=[_trait_of(vectors)])
    if set(vectors.dims) != {"trait", "layer", "dim"}:
        raise ValueError(
            f"vectors has the dims {vectors.dims}; capture needs (trait, layer, dim). Choose one "
            "method with vectors.sel({'method': …}); name a layer with .expand_dims(layer=[12])."
        )
    there = vectors["layer"].values.tolist()
    wanted = [n for n in range(len(model.layers)) if n in there] if layers is None else list(layers)
    require_layers(vectors, wanted)
    return vectors.transpose("trait", "layer", "dim"), wanted


def _hash(vectors: xr.DataArray) -> str:
    values = np.ascontiguousarray(vectors.values, np.float32)
    names = digest([vectors["trait"].values.tolist(), vectors["layer"].values.tolist()])
    return names + hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _trait_of(vector: xr.DataArray) -> str:
    return str(vector["trait"].values) if "trait" in vector.coords else "vector"
