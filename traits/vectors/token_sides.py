"""Contrast traces token by token: each vector reads every token, and its scores are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from tracekit.storage.difference import norm
from tracekit.transcripts.pooling import Pooling, pooled
from traits.vectors.pairing import answer_tokens


@dataclass(frozen=True)
class TokenSide:
    """The tokens of one side of some pairs, where `(pair, window, layer, dim)` of means may stand.

    `tokens` (row, token, layer, dim) are NaN in holes; `pair` says whose row each is: several rows
    of a pair (samples) are pooled each and averaged. `windows` (window, token) are the tokens that
    each window has.
    """

    tokens: Float[np.ndarray, "row token layer dim"]
    pair: Int[np.ndarray, " row"]
    windows: Bool[np.ndarray, "window token"]
    pooling: Pooling

    def __len__(self) -> int:
        return int(self.pair.max()) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """As if they were means: (pair, window, layer, dim)."""
        return len(self), len(self.windows), *self.tokens.shape[2:]

    def of_window(self, window: int) -> TokenSide:
        """With one window alone."""
        return replace(self, windows=self.windows[[window]])

    def scores(
        self, vectors: Float[np.ndarray, "method window layer dim"]
    ) -> Float[np.ndarray, "method window layer pair"]:
        """The pooled projections of every pair onto every vector of its window and layer."""
        counts = np.bincount(self.pair)
        made = np.empty((*vectors.shape[:3], len(counts)))
        for window, there in enumerate(self.windows):
            columns = np.moveaxis(vectors[:, window], 0, -1)  # (layer, dim, method)
            along = np.moveaxis(self.tokens[:, there], 1, 2) @ columns  # (row, layer, token, …)
            rows = pooled(np.moveaxis(along, 2, -1), self.pooling)  # (row, layer, method)
            sums = np.zeros((len(counts), *rows.shape[1:]))
            np.add.at(sums, self.pair, rows)
            made[:, window] = np.moveaxis(sums / counts[:, None, None], 0, -1).swapaxes(0, 1)
        return made


def token_sides(
    traces: xr.DataArray,
    names: Sequence[str],
    windows: Mapping[str, slice | None] | None,
    kind: str,
    pooling: Pooling,
) -> tuple[TokenSide, TokenSide]:
    """The positive and the negative side of the pairs called `names`, in that order.

    A window of None is of the tokens that `pairs` averages, and no windows are one of those.
    `traces` (prompt, token, layer, dim) with `label` and `group`; with the `kind` cosine each
    token has the length 1. Errors: `ValueError` for traces without tokens, and for a row that has
    none in a window.

    >>> rows = {"label": ("prompt", [1, 0]), "group": ("prompt", ["a/0", "a/0"])}
    >>> values = np.ones((2, 3, 1, 4))
    >>> values[0, 1] = 5.0
    >>> dims = ("prompt", "token", "layer", "dim")
    >>> traces = xr.DataArray(values, dims=dims, coords=rows).assign_coords(token=[0, 1, 2])
    >>> sides = token_sides(traces, ["a/0"], None, "scalar", Pooling("max"))
    >>> [side.scores(np.ones((1, 1, 1, 4))).item() for side in sides]
    [20.0, 4.0]
    """
    if "token" not in traces.dims:
        raise InputError(
            f"pooling={str(pooling)!r} was asked for, and the traces have the dims "
            f"{tuple(traces.dims)}: no tokens to pool. Capture without reduce."
        )
    traces = traces if kind == "scalar" else traces / norm(traces)
    axis = xr.DataArray(np.arange(traces.sizes["token"]), {"token": traces["token"]}, ("token",))
    masks = np.stack(
        [
            answer_tokens(traces) if cut is None else np.isin(axis, axis.sel(token=cut))
            for cut in (windows or {"all": None}).values()
        ]
    )
    positive, negative = (_side(traces, names, side, masks, pooling) for side in (1, 0))
    return positive, negative


def _side(
    traces: xr.DataArray, names: Sequence[str], label: int, windows: np.ndarray, pooling: Pooling
) -> TokenSide:
    place = {name: number for number, name in enumerate(names)}
    pair = np.array([place.get(name, -1) for name in traces["group"].values.tolist()])
    rows = np.flatnonzero((traces["label"].values == label) & (pair >= 0))
    tokens = traces.transpose("prompt", "token", "layer", "dim").isel(prompt=rows).values
    there = np.isfinite(tokens).all((2, 3))
    empty = np.argwhere(~(there[:, None] & windows).any(-1))
    if len(empty):
        raise InputError(
            f"The row {traces['prompt'].values[rows[empty[0][0]]]!r} has no token in window "
            f"{empty[0][1]}: nothing to pool. Leave it out, or take tokens that every row has."
        )
    return TokenSide(tokens, pair[rows], windows, pooling)
