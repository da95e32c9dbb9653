"""Ablation of a whole site, or of attention heads: their values as zero, a mean, or another's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed
from tracekit.edits.conditions import Condition
from tracekit.edits.directions import Direction, hashed
from tracekit.edits.edit import edit, refuse_remote, require_site
from tracekit.edits.positions import Rows
from tracekit.errors import InputError
from tracekit.model import parts
from tracekit.model.heads import require_heads
from tracekit.passes.capture import capture
from tracekit.transcripts.encode import ids_hash, ids_of, own_names
from tracekit.transcripts.selection import Tokens, recorded

WAYS = ("zero", "mean", "resample")
# (value, layer, rows) → what stands in its place
Instead = Callable[[torch.Tensor, int, Rows | None], torch.Tensor]


def knock_out(
    model: TransformersModel,
    layers: int | Sequence[int] | None = None,
    *,
    site: str = "attention",
    heads: Sequence[tuple[int, int]] | None = None,
    to: str = "zero",
    reference: xr.Dataset | None = None,
    reference_tokens: Tokens = "all",
    tokens: Tokens = "all",
    when: Condition | None = None,
    seed: int = 0,
) -> TransformersModel:
    """A copy of the model in which a site of some blocks, or some heads, say nothing of the input.

    `heads` are pairs (layer, head), of what each hands to attention's output projection; without
    them `site` ("attention", "mlp", "mlp_hidden") of `layers` is replaced as a whole. `to="zero"`;
    `"mean"`, the mean over `reference_tokens` of each `reference` row, then over rows (leave out
    the first tokens where they are massive); or `"resample"`: the values of another row of
    `reference`, drawn by `seed` and the prompt's id, at the same token label or the nearest that
    it has. `reference` are transcripts, read through this model now. `tokens` (here by default
    every one) and `when` as in `steer`.
    Source: mean and resample ablation, arXiv:2211.00593 and Redwood's causal scrubbing (2022).

    Errors: `ValueError` for heads, layers or a site that the model lacks (with those it has), for
    another way, for a reference that is missing or of no use, and as `steer`.

    >>> without = knock_out(model, heads=[(3, 1), (3, 2)], to="mean", reference=runs)
    >>> tk.generate(without, runs, max_new_tokens=2).sizes["prompt"]
    3
    """
    refuse_remote(model, "knock_out")
    _require_way(to, reference)
    if (seed and to != "resample") or (reference is None and recorded(reference_tokens) != "all"):
        raise InputError(
            f"knock_out was given to={to!r}, seed={seed} and reference_tokens="
            f"{recorded(reference_tokens)}; a seed is of 'resample', tokens are of a reference=. "
            "Leave out what does nothing."
        )
    _require_pairs(heads or ())
    site, chosen, members = _places(model, layers, site, heads)
    made: dict[str, Any] = {"to": to}
    if heads is not None:
        made["heads"] = [[layer, head] for layer in chosen for head in members[layer]]
    instead: Instead = _zero
    if reference is not None:
        drawn = _Drawn(model, reference, chosen, site, reference_tokens, to, seed)
        instead, made = drawn.instead, {**made, **drawn.described()}

    def change(
        value: torch.Tensor, layer: int, where: torch.Tensor, rows: Rows | None
    ) -> torch.Tensor:
        new = instead(value, layer, rows).to(value)
        if heads is None:
            return new
        acts = torch.zeros(value.shape[2], 1, dtype=torch.bool, device=value.device)
        acts[members[layer]] = True
        return torch.where(acts, new, value)

    return edit(model, "knock_out", chosen, change, tokens, site=site, when=when, **made)


def _places(
    model: TransformersModel,
    layers: int | Sequence[int] | None,
    site: str,
    heads: Sequence[tuple[int, int]] | None,
) -> tuple[str, list[int], Mapping[int, list[int]]]:
    """The site, its layers, and the heads of each (none where the whole site is meant)."""
    if (layers is None) == (heads is None) or (heads is None and site == "heads"):
        raise InputError(
            f"knock_out was given layers={layers}, site={site!r} and heads={heads}; give the "
            "layers of a whole site, or heads=[(layer, head), …]."
        )
    if heads is None:
        chosen = listed(layers) or []
        require_site(model, chosen, site)
        return site, chosen, {}
    if site not in ("attention", "heads"):
        raise InputError(
            f"knock_out was given heads= and site={site!r}; heads are attention's. Leave site out, "
            "or give the layers of that site."
        )
    wanted: dict[int, list[int]] = {}
    for layer, head in heads:
        wanted.setdefault(int(layer), []).append(int(head))
    require_site(model, sorted(wanted), "heads")
    members = {n: require_heads(model, n, of) for n, of in sorted(wanted.items())}
    return "heads", list(members), members


def _zero(value: torch.Tensor, layer: int, rows: Rows | None) -> torch.Tensor:
    return torch.zeros_like(value)


class _Drawn:
    """What reference rows have at a site, to stand in the place of others' values."""

    def __init__(
        self,
        model: TransformersModel,
        reference: xr.Dataset,
        layers: Sequence[int],
        site: str,
        tokens: Tokens,
        to: str,
        seed: int,
    ) -> None:
        self.seed, self.names, self.to = seed, ids_of(reference), to
        self.made = {"reference": ids_hash(reference), "reference_tokens": recorded(tokens)}
        read: Any = ("carried", _carried) if site == "heads" else site
        given: dict[str, Any] = {"site": read, "tokens": tokens, "progress": False}
        if to == "mean":
            values = capture(model, reference, layers, reduce="mean", **given).mean("prompt")
        else:
            values = capture(model, reference, layers, **given)
            real = values["token_id"].transpose("prompt", "token").values >= 0
            self.labels = values["token"].values
            # each row's places, in the order of its labels
            self.places = [np.flatnonzero(row) for row in real]
            values = values.transpose("layer", "prompt", "token", ...)
        self.at = {layer: Direction(values.sel(layer=layer).values) for layer in layers}

    def instead(self, value: torch.Tensor, layer: int, rows: Rows | None) -> torch.Tensor:
        table = self.at[layer]
        if self.to == "mean":
            return table.on(value.device).view(value.shape[2:]).expand_as(value)
        if rows is None:
            raise InputError(
                "A resampling edit ran in a raw model.trace, where no row's prompt is known. Use "
                "tk.generate or tk.capture."
            )
        taken = [self._row(name) for name in rows.prompts]
        columns = [self._nearest(row, n) for row, n in zip(rows.labels.numpy(), taken, strict=True)]
        # looked up where the table lies: a GPU gets the batch, not the whole reference
        found = table.values[torch.tensor(taken)[:, None], torch.as_tensor(np.stack(columns))]
        return found.to(value.device).view(value.shape)

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        drawn = {"seed": self.seed} if self.to == "resample" else {}
        return {**self.made, **drawn, "vector": hashed(self.at)}

    def _row(self, prompt: str) -> int:
        """Another row of the reference, the same one whatever it is batched with."""
        own = own_names(prompt)
        others = [n for n, name in enumerate(self.names) if name not in own]
        drawn = hashlib.sha256(f"{self.seed}/{prompt}".encode()).digest()
        return others[int.from_bytes(drawn[:8], "big") % len(others)]

    def _nearest(self, labels: np.ndarray, row: int) -> np.ndarray:
        places = self.places[row]
        there = self.labels[places]
        after = np.searchsorted(there, labels).clip(1, max(len(there) - 1, 1))
        after = after.clip(max=len(there) - 1)
        before = (after - 1).clip(min=0)
        is_nearer = labels - there[before] < there[after] - labels
        return places[np.where(is_nearer, before, after)]


def _carried(block: Any) -> torch.Tensor:
    return parts.carried(block).flatten(2)


def _require_pairs(heads: Any) -> None:
    wrong = [one for one in heads if not isinstance(one, tuple | list) or len(one) != 2]
    if wrong:
        raise InputError(
            f"knock_out was given the head {wrong[0]!r}; heads are pairs (layer, head), such as "
            "heads=[(3, 1), (3, 2)]."
        )


def _require_way(to: str, reference: xr.Dataset | None) -> None:
    if to not in WAYS:
        raise InputError(f"to={to!r} was asked for; there are {', '.join(map(repr, WAYS))}.")
    if (reference is None) != (to == "zero"):
        raise InputError(
            f"knock_out was asked for to={to!r} {'without' if reference is None else 'with'} a "
            "reference=; 'mean' and 'resample' need transcripts that say what is usual, and "
            "'zero' takes none."
        )
    if to == "resample" and reference is not None and reference.sizes["prompt"] < 2:
        raise InputError(
            "knock_out was asked to resample from a reference of one prompt; a row gets the "
            "values of another, so give two or more."
        )
