"""Any direction's score of a response where that is no mean: read off its tokens' residuals.

A mean of cosines is the dot product with one mean; the maximum of a response's tokens is not.
The layers kept in full are enough to read, and to pool, any direction as the traits are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.transcripts.pooling import Pooling, pooled

BATCH = 64  # draws of directions for which residuals are read once

# of (token, dim) unit residuals the score of each direction: (token, direction)
Read = Callable[[Float[np.ndarray, "token dim"]], Float[np.ndarray, "token direction"]]


@dataclass(frozen=True)
class TokenResiduals:
    """Residuals (prompt, token, layer, dim) of responses, of some of the `layers` of an audit.

    It stands where unit means (row, layer, dim) do: `len` is the number of rows, `shape` counts
    tokens as rows, an index picks rows.
    """

    traces: xr.DataArray
    layers: Sequence[int]
    pooling: Pooling

    def __len__(self) -> int:
        return self.traces.sizes["prompt"]

    def __getitem__(self, rows: np.ndarray) -> TokenResiduals:
        places = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, traces=self.traces.isel(prompt=places))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tokens, layers, dim): what reading directions off them takes."""
        sizes = self.traces.sizes
        return sizes["prompt"] * sizes["token"], len(self.layers), sizes["dim"]

    def at(self, place: int, read: Read, width: int) -> Float[np.ndarray, "row direction"]:
        """The pooled scores of `width` directions at a place of `layers`; NaN where not kept.

        >>> shape, layers = ("prompt", "token", "layer", "dim"), {"layer": [4]}
        >>> traces = xr.DataArray([[[[3.0, 4.0]], [[2.0, 0.0]]]], layers, shape)
        >>> tokens = TokenResiduals(traces, [3, 4], Pooling("max"))
        >>> tokens.at(1, lambda unit: unit @ np.eye(2), 2).tolist()
        [[1.0, 0.8]]
        """
        if self.layers[place] not in self.traces["layer"].values:
            return np.full((len(self), width), np.nan)
        values = (
            self.traces.sel(layer=self.layers[place]).transpose("prompt", "token", "dim").values
        )
        there = np.isfinite(values).all(-1)
        tokens = values[there].astype(float)
        length = np.linalg.norm(tokens, axis=-1, keepdims=True)
        scores = np.full((*there.shape, width), np.nan)
        scores[there] = read(tokens / np.where(length > 0, length, 1.0))
        return pooled(np.moveaxis(scores, -1, 0), self.pooling).T


def projections(
    values: Float[np.ndarray, "row layer dim"] | TokenResiduals,
    draws: Iterable[Float[np.ndarray, "trait layer dim"]],
) -> Iterator[Float[np.ndarray, "row layer trait"]]:
    """The scores of every row by each draw of unit vectors; NaN at layers that are not kept.

    >>> next(projections(np.ones((2, 3, 4)), iter([np.ones((1, 3, 4))]))).shape
    (2, 3, 1)
    """
    if not isinstance(values, TokenResiduals):
        for vectors in draws:
            yield np.einsum("rld,tld->rlt", values, vectors, optimize=True)
        return
    remaining = iter(draws)
    while batch := list(itertools.islice(remaining, BATCH)):
        whole = np.stack(batch)
        flat = whole.reshape(-1, *whole.shape[2:])
        layers = [
            values.at(place, lambda unit, here=here: unit @ here.T, len(flat))
            for place, here in enumerate(np.moveaxis(flat, 1, 0))
        ]
        found = np.stack(layers, axis=1).reshape(len(values), len(layers), *whole.shape[:2])
        yield from np.moveaxis(found, 2, 0)
