"""Edited models: steer, ablate, clamp. `generate` and `capture` take them like any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.banks import Choice, bank_dim
from tracekit.edits.compatibility import require_fit
from tracekit.edits.conditions import Condition
from tracekit.edits.directions import (
    Amount,
    Amounts,
    Direction,
    Vector,
    directions,
    hashed,
    labelled,
    wide,
)
from tracekit.edits.edit import edit
from tracekit.edits.edit import edited_depth as edited_depth
from tracekit.edits.patching import patch as patch
from tracekit.edits.positions import DEFAULT_TOKENS, Rows
from tracekit.edits.positions import rows_of as rows_of
from tracekit.errors import InputError
from tracekit.transcripts.selection import Tokens


def steer(
    model: TransformersModel,
    vector: Vector,
    *,
    coefficient: Amount,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
    when: Condition | None = None,
    transfer: bool = False,
) -> TransformersModel:
    """A copy of the model that adds `coefficient × vector` to the residual stream.

    `vector` (dim) acts at `layers` (by default at its `layer` coordinate); with a `layer` dim it
    acts at each of its layers; a plain array or tensor needs `layers`. `coefficient` is a number,
    or a DataArray over `prompt` (one a row, of `per_prompt` or `sweep`), `layer` (one a layer, such
    as a multiple of `residual_norm`), or both. `tokens` as in `capture`: by default the last
    prompt token and everything generated, so that the first generated token is influenced; a
    boolean array (prompt, token), such as of `tk.find`, is looked up by prompt and label, and what
    it has no label for is not edited. `when` says at which of them it acts: where a projection is
    over a threshold (`tk.when`). A vector with one more dim, such as `direction`, steers each row
    along the one that `coefficient` has as a coordinate of that name over `prompt` (`sweep` makes
    it). A vector made with other weights needs `transfer=True`.
    Source: activation addition, arXiv:2308.10248.

    Errors: `ValueError` for a vector or layers that do not fit, a coefficient that is not finite
    or makes values that are not, a mask without a row for a prompt or of other ids, and a remote
    model.

    >>> happy = steer(model, vectors.sel(trait="alignment/sycophancy", layer=12), coefficient=8.0)
    """
    vector = labelled(vector, layers)
    made = require_fit(model, vector, transfer=transfer)
    bank = bank_dim(vector, coefficient)
    at = directions(model, vector, layers, unit=False, bank=bank)
    amount = Amounts("coefficient", coefficient, at)
    choice = None
    if bank is not None and isinstance(coefficient, xr.DataArray):
        choice = Choice(vector, coefficient, amount, bank)
    made |= {"vector": hashed(at), "coefficient": amount.described()}
    made |= {} if choice is None else {"chosen": choice.described()}

    def change(hidden: torch.Tensor, layer: int, where: object, rows: Rows | None) -> torch.Tensor:
        there = hidden.device
        scale, direction = amount.at(layer, rows, there), at[layer].on(there)
        if choice is not None and rows is not None:
            direction = choice.of(direction, rows)
        return wide(hidden) + scale * direction

    return edit(model, "steer", list(at), change, tokens, when=when, **made)


def ablate(
    model: TransformersModel,
    vector: Vector,
    *,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
    mean: Amount = 0.0,
    when: Condition | None = None,
    transfer: bool = False,
) -> TransformersModel:
    """A copy of the model whose residual stream has no component along `vector`.

    It acts on the output of each block of `layers`. With `mean` the component is set to that
    value (mean ablation); a DataArray over `layer` or `prompt` sets one for each. `tokens` and
    `when` as in `steer`.
    Source: directional ablation, arXiv:2406.11717. Errors as for `steer`.

    >>> without = ablate(model, vector, layers=range(30), tokens="all")
    """
    vector = labelled(vector, layers)
    made = require_fit(model, vector, transfer=transfer)
    at = directions(model, vector, layers)
    goal = Amounts("mean", mean, at)

    def change(hidden: torch.Tensor, layer: int, where: object, rows: Rows | None) -> torch.Tensor:
        values, along, direction = _projected(hidden, at[layer])
        return values + (goal.at(layer, rows, hidden.device) - along) * direction

    made |= {"vector": hashed(at), "mean": goal.described()}
    return edit(model, "ablate", list(at), change, tokens, when=when, **made)


def clamp(
    model: TransformersModel,
    vector: Vector,
    *,
    low: Amount = -np.inf,
    high: Amount = np.inf,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = DEFAULT_TOKENS,
    when: Condition | None = None,
    transfer: bool = False,
) -> TransformersModel:
    """A copy of the model whose projection on the unit `vector` stays between `low` and `high`.

    Bounds are in residual units; a DataArray over `layer` or `prompt` gives one for each, such as
    the clean model's own range. `tokens` and `when` as in `steer`. Errors as for `steer`, and
    `ValueError` for low above high, and for neither.

    >>> capped = clamp(model, vectors.sel(trait="alignment/sycophancy", layer=12), high=3.0)
    """
    vector = labelled(vector, layers)
    made = require_fit(model, vector, transfer=transfer)
    at = directions(model, vector, layers)
    below, above = Amounts("low", low, at, finite=False), Amounts("high", high, at, finite=False)
    if np.all(np.isneginf(low)) and np.all(np.isposinf(high)):
        raise InputError("clamp was asked for without a bound. Give low=, high= or both.")
    if not np.all(low <= high):
        raise InputError(f"clamp was asked for low={low} and high={high}; low must not exceed it.")

    def change(hidden: torch.Tensor, layer: int, where: object, rows: Rows | None) -> torch.Tensor:
        values, along, direction = _projected(hidden, at[layer])
        ends = [bound.at(layer, rows, hidden.device) for bound in (below, above)]
        return values + (torch.minimum(torch.maximum(along, ends[0]), ends[1]) - along) * direction

    made |= {"vector": hashed(at), "bounds": [below.described(), above.described()]}
    return edit(model, "clamp", list(at), change, tokens, when=when, **made)


def _projected(
    hidden: torch.Tensor, direction: Direction
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = wide(hidden)
    unit = direction.on(hidden.device).to(values.dtype)
    return values, (values @ unit)[..., None], unit
