"""When an edit acts: where a projection is over a threshold, or at some steps of a generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import require_fit
from tracekit.edits.directions import (
    Amount,
    Amounts,
    Direction,
    Vector,
    directions,
    hashed,
    labelled,
)
from tracekit.edits.positions import Rows
from tracekit.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Condition:
    """What has to hold at a token for an edit to act there; made by `when`."""

    vector: xr.DataArray | None
    layer: int | None
    above: Amount
    below: Amount
    steps: range | None
    transfer: bool


def when(
    vector: Vector | None = None,
    *,
    above: Amount = -np.inf,
    below: Amount = np.inf,
    layer: int | None = None,
    steps: range | None = None,
    transfer: bool = False,
) -> Condition:
    """A condition on each token, for the `when=` of an edit: it acts where all of it holds.

    The dot product of the residual stream after block `layer` (by default the vector's own) with
    `vector` (dim), as `capture(vectors=…)` gives it, is over `above` and under `below`: a probe is
    its direction with `above=-offset`. The stream is read before this edit acts, so `layer` is at
    most the first that is edited. Both bounds are numbers, or a DataArray over `prompt`. `steps`
    are those of the generation that are edited: `range(10)` is the first ten, the steps that say
    the response's tokens 0 to 9 (each acts at the token before).

    Errors: `ValueError` for a vector without a bound or a bound without a vector, for a layer that
    is not given; `TypeError` for steps that are no range.

    >>> vector = vectors.sel(trait="alignment/sycophancy", layer=12)
    >>> steered = tk.steer(model, vector, coefficient=-8.0, when=when(vector, above=3.0))
    """
    bounded = [not isinstance(one, int | float) or np.isfinite(one) for one in (above, below)]
    if (vector is not None) != any(bounded) or (vector is None and steps is None):
        raise InputError(
            f"when was given {'no' if vector is None else 'a'} vector, above={above}, "
            f"below={below} and steps={steps}. A projection needs a vector and a bound; without "
            "them give steps=range(…)."
        )
    if steps is not None and not (isinstance(steps, range) and steps.step == 1 and len(steps)):
        raise InputTypeError(
            f"when was given steps={steps!r}; the steps of a generation are a range such as "
            "range(10), the first ten."
        )
    if vector is not None:
        vector = labelled(vector, layer)
        if vector.dims != ("dim",) or (layer is None and "layer" not in vector.coords):
            raise InputError(
                f"when was given a vector with the dims {vector.dims} and layer={layer}; it needs "
                "(dim), and the layer where it is read: choose one with .sel(layer=12), or layer=."
            )
    return Condition(vector, layer, above, below, steps, transfer)


class Held:
    """A condition on one model, read in its forwards; `limit` is the last layer it may read.

    Errors: `ValueError` for a vector that does not fit the model, or a layer over the limit.
    """

    def __init__(self, model: TransformersModel, condition: Condition, limit: int) -> None:
        self.steps, self.layer = condition.steps, -1
        self._at: dict[int, Direction] = {}
        self._made: dict[str, Any] = {}
        if condition.vector is None:
            return
        self._made = require_fit(model, condition.vector, transfer=condition.transfer)
        self._at = directions(model, condition.vector, condition.layer, unit=False)
        (self.layer,) = self._at
        if self.layer > limit:
            raise InputError(
                f"when= reads layer {self.layer}, and the edit acts on values that are there "
                f"before it is. Read at layer {limit} or before, or edit later layers."
            )
        self._above = Amounts("above", condition.above, self._at, finite=False)
        self._below = Amounts("below", condition.below, self._at, finite=False)

    @property
    def reads(self) -> bool:
        """Whether it reads the stream after `layer`."""
        return bool(self._at)

    def over(self, hidden: torch.Tensor, rows: Rows | None) -> torch.Tensor:
        """Where the projection is within its bounds: (row, column, 1), of the stream."""
        there = hidden.device
        along = (hidden.float() @ self._at[self.layer].on(there))[..., None]
        above, below = (b.at(self.layer, rows, there) for b in (self._above, self._below))
        return (along > above) & (along < below)

    def during(self, rows: Rows | None) -> torch.Tensor:
        """Where the steps are, or everywhere without any: (row, column, 1)."""
        if self.steps is None:
            return torch.ones(1, 1, 1, dtype=torch.bool)
        if rows is None:
            raise InputError(
                "An edit at steps of a generation ran in a raw model.trace, which has none. Use "
                "tk.generate or tk.capture."
            )
        # the step that says token k sees the one before it
        said = rows.labels + 1
        return ((said >= self.steps.start) & (said < self.steps.stop))[..., None]

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        made: dict[str, Any] = {}
        made |= {} if self.steps is None else {"steps": [self.steps.start, self.steps.stop]}
        if not self._at:
            return made
        bounds = [self._above.described(), self._below.described()]
        read = {"vector": hashed(self._at), "layer": self.layer, "bounds": bounds}
        return {**read, **self._made, **made}
