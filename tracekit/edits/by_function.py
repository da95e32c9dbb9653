"""An edit by any function of the values at a site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed
from tracekit.edits.conditions import Condition
from tracekit.edits.edit import edit as stored_edit
from tracekit.edits.positions import DEFAULT_TOKENS, Rows
from tracekit.errors import InputError, InputTypeError
from tracekit.model.functions.fingerprint import Named, named
from tracekit.transcripts.selection import Tokens

# (value (row, column, …), layer) → value
Function = Callable[[torch.Tensor, int], torch.Tensor]


def edit(
    model: TransformersModel,
    function: Function | Named,
    *,
    layers: int | Sequence[int],
    site: str = "residual",
    tokens: Tokens = DEFAULT_TOKENS,
    when: Condition | None = None,
) -> TransformersModel:
    """A copy of the model whose values at a site are what `function` makes of them.

    `function(value, layer)` is given (row, column, dim), whole prompts padded on the left and then
    a column for each generated token, and returns as much; only what it says at `tokens` (and
    where `when` holds) is taken. `site` is "residual" (a block's output), "attention" or "mlp"
    (what each adds to it), "mlp_hidden" (row, column, unit), or "heads" (row, column, head,
    width): what each head hands to attention's output projection. Of other positions, padding
    included, it may read and change what it likes, without effect. It is recorded by its source
    and bound values as they are now (a global that it reads is not to change), or under a name of
    your own as a pair `("name", function)`.

    Errors: `ValueError` for layers, a site or tokens that are not there, for a function that
    cannot be recorded, and when it runs for a value of another shape, or that is not finite;
    `TypeError` for one that returns no tensor.

    >>> halved = tk.edit(model, lambda value, layer: value / 2, layers=range(4, 8), site="mlp")
    >>> tk.generate(halved, runs, max_new_tokens=2).sizes["prompt"]
    3
    """
    name, called = named("function", function)
    chosen = listed(layers) or []

    def change(
        value: torch.Tensor, layer: int, where: torch.Tensor, rows: Rows | None
    ) -> torch.Tensor:
        # a copy: what it writes into its argument would reach every position
        new = called(value.clone(), layer)
        _require_like(name, new, value)
        return new

    return stored_edit(model, "edit", chosen, change, tokens, site=site, when=when, function=name)


def _require_like(name: str, new: Any, value: torch.Tensor) -> None:
    if not isinstance(new, torch.Tensor):
        raise InputTypeError(
            f"The edit {name} returned a {type(new).__name__} for values of shape "
            f"{tuple(value.shape)}; it must return a tensor of that shape."
        )
    if new.shape != value.shape:
        raise InputError(
            f"The edit {name} returned the shape {tuple(new.shape)} for values of shape "
            f"{tuple(value.shape)} (row, column, …); it must return as much. While tokens are "
            "generated a forward has one column."
        )
