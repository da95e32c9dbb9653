"""When an edit acts: where a projection or a probe is over a threshold, or at some steps."""

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
    wide,
)
from tracekit.edits.positions import Rows, Running
from tracekit.edits.probe_form import ProbeForm, read_probe, scored, threshold_of
from tracekit.edits.score_so_far import SoFar
from tracekit.errors import InputError, InputTypeError
from tracekit.transcripts.pooling import Poolable, Pooling


@dataclass(frozen=True)
class Condition:
    """What has to hold at a token for an edit to act there; made by `when`."""

    vector: xr.DataArray | xr.Dataset | None
    layer: int | None
    above: Amount
    below: Amount
    steps: range | None
    pooling: Pooling | None
    transfer: bool


def when(
    vector: Vector | xr.Dataset | None = None,
    *,
    above: Amount | None = None,
    below: Amount | None = None,
    layer: int | None = None,
    steps: range | None = None,
    pooling: Poolable | None = None,
    transfer: bool = False,
) -> Condition:
    """A condition on each token, for the `when=` of an edit: it acts where all of it holds.

    The dot product of the residual stream after block `layer` (by default the vector's own) with
    `vector` (dim), as `capture(vectors=…)` gives it, is over `above` and under `below`. In its
    place a probe (of `traits.fit`) is read at its own layer: each token's own score, as
    `capture(probes=…)` gives it, over the probe's threshold where no bound is given. That
    threshold was set for pooled scores: `pooling=probe.attrs["pooling"]` (or any other, as of
    `tk.pool`) compares the score of the response so far, up to each token, and acts nowhere before
    its first (the first token that the probe pools, of one that was fitted on others). It is kept
    for each row from step to step.

    The stream is read before this edit acts, so `layer` is at most the first that is edited. Both
    bounds are numbers, or a DataArray over `prompt`. `steps` are those of the generation that are
    edited: `range(10)` is the first ten, the steps that say the response's tokens 0 to 9 (each
    acts at the token before).

    Errors: `ValueError` for a vector without a bound or a bound without a vector, for a layer that
    is not given, for a probe with a layer= beside its own or without a threshold where no bound is
    given, and for the pooling of a vector; `TypeError` for steps that are no range.

    >>> vector = vectors.sel(trait="alignment/sycophancy", layer=12)
    >>> steered = tk.steer(model, vector, coefficient=-8.0, when=when(vector, above=3.0))
    >>> gate = when(probe, above=0.5, pooling="ema")
    >>> later = tk.steer(model, vector, coefficient=-8.0, layers=20, when=gate)
    """
    if isinstance(vector, xr.Dataset) and above is None and below is None:
        above = threshold_of(vector)
    bounded = above is not None or below is not None
    if (vector is not None) != bounded or (vector is None and steps is None):
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
    read = None if pooling is None else Pooling.read(pooling)
    low, high = -np.inf if above is None else above, np.inf if below is None else below
    chosen = _read_at(vector, layer, read)
    return Condition(chosen, layer, low, high, steps, read, transfer)


def _read_at(vector: Any, layer: int | None, pooling: Pooling | None) -> Any:
    """What is read, with its labels: a probe, a vector that has one layer, or nothing."""
    if isinstance(vector, xr.Dataset):
        if layer is not None:
            raise InputError(
                f"when was given a probe and layer={layer}; a probe is read at its own layer. "
                "Leave layer= out."
            )
        return vector
    if pooling is not None:
        raise InputError(
            f"when was given pooling={str(pooling)!r} and "
            f"{'no vector' if vector is None else 'a vector'}; scores of a response so far are "
            "those of a probe. Give a probe (traits.fit), or leave pooling= out."
        )
    if vector is None:
        return None
    vector = labelled(vector, layer)
    if vector.dims != ("dim",) or (layer is None and "layer" not in vector.coords):
        raise InputError(
            f"when was given a vector with the dims {vector.dims} and layer={layer}; it needs "
            "(dim), and the layer where it is read: choose one with .sel(layer=12), or layer=."
        )
    return vector


class Held:
    """A condition on one model, read in its forwards; `limit` is the last layer it may read.

    Errors: `ValueError` for a vector or probe that does not fit the model, or a layer over the
    limit.
    """

    def __init__(self, model: TransformersModel, condition: Condition, limit: int) -> None:
        self.steps, self.layer, self._pooling = condition.steps, -1, condition.pooling
        self._at: dict[int, Direction] = {}
        self._form: ProbeForm | None = None
        self._made: dict[str, Any] = {}
        vector, transfer = condition.vector, condition.transfer
        if vector is None:
            return
        if isinstance(vector, xr.Dataset):
            self._form = read_probe(model, vector, pooling=self._pooling, transfer=transfer)
            self.layer = self._form.layer
        else:
            self._made = require_fit(model, vector, transfer=transfer)
            self._at = directions(model, vector, condition.layer, unit=False, read=True)
            (self.layer,) = self._at
        if self.layer > limit:
            raise InputError(
                f"when= reads layer {self.layer}, and the edit acts on values that are there "
                f"before it is. Read at layer {limit} or before, or edit later layers."
            )
        self._above = Amounts("above", condition.above, [self.layer], finite=False)
        self._below = Amounts("below", condition.below, [self.layer], finite=False)

    @property
    def reads(self) -> bool:
        """Whether it reads the stream after `layer`."""
        return bool(self._at) or self._form is not None

    def over(self, hidden: torch.Tensor, running: Running | None, step: int) -> torch.Tensor:
        """Where the projection or score is within its bounds: (row, column, 1), of the stream."""
        there, rows = hidden.device, None
        if running is not None:
            rows = running.rows(step, hidden.shape[1])
        along = self._along(hidden, running, step)[..., None]
        above, below = (b.at(self.layer, rows, there) for b in (self._above, self._below))
        return (along > above) & (along < below)

    def _along(self, hidden: torch.Tensor, running: Running | None, step: int) -> torch.Tensor:
        if self._form is None:
            values = wide(hidden)
            return values @ self._at[self.layer].on(hidden.device).to(values.dtype)
        if self._pooling is None:
            return scored(hidden, self._form.parts(hidden.device))[0]
        if running is None:
            raise InputError(
                "An edit gated by a probe's score so far ran in a raw model.trace, which knows no "
                "response. Use tk.generate or tk.capture, or a gate without pooling=."
            )
        return SoFar.of(self, running, self._form).step(hidden, running, step)[1]

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
        if not self.reads:
            return made
        bounds = [self._above.described(), self._below.described()]
        if self._form is not None:
            pooling = None if self._pooling is None else str(self._pooling)
            return {"probe": self._form.described(), "pooling": pooling, "bounds": bounds, **made}
        read = {"vector": hashed(self._at), "layer": self.layer, "bounds": bounds}
        return {**read, **self._made, **made}
