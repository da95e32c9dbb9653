"""Directions that know nothing of the traits, through the same choices and statistic as the traits.

Nearly every direction reads some of a text that a label marks, so that a claim about traits has to
be beyond what directions at random do. A cosine with a unit vector is linear in it: unit means of
answers are kept at all layers, and every direction is read off them without a model. Where a score
is no mean (the largest of a response's tokens, say), directions are read off the tokens of the
layers kept in full, and pooled as the traits are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

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


Projected = Float[np.ndarray, "draw row layer trait"]
# what directions are read off: unit means, or tokens whose scores are pooled otherwise
Values = Float[np.ndarray, "row layer dim"] | TokenResiduals
# of one or several projections, those of the same directions: how far each trait goes
Statistic = Callable[..., Float[np.ndarray, "draw trait"]]
BLOCK = 2**27  # bytes of a block of projections


@dataclass(frozen=True)
class Directions:
    """Draws of as many directions as there are traits, each a weighted sum of `samples`.

    The same weights at every layer, so that a direction is as alike from layer to layer as what
    it is made of. Directions are of length one wherever they are read.
    """

    samples: Float[np.ndarray, "sample layer dim"]
    weights: Float[np.ndarray, "draw trait sample"]

    @property
    def draws(self) -> int:
        """How many sets there are."""
        return len(self.weights)

    def projected(self, values: Values, places: Iterable[int] | None = None) -> Projected:
        """The dot product of every row with every direction, layer by layer.

        Of tokens, the pooled dot products with them; NaN at layers that are not kept, and at those
        that are not among the `places` on the layer axis where these are given.

        >>> draw = np.random.default_rng(0)
        >>> directions = matched(draw.normal(size=(9, 3, 5)), 2, draw, 4)
        >>> directions.projected(draw.normal(size=(7, 3, 5))).shape
        (4, 7, 3, 2)
        """
        draws, traits, _ = self.weights.shape
        flat = self.weights.reshape(draws * traits, -1)
        whole = np.full((draws, len(values), values.shape[1], traits), np.nan)
        for layer in range(values.shape[1]) if places is None else places:
            samples = self.samples[:, layer].astype(float)
            length = np.sqrt(np.einsum("ws,ws->w", flat @ (samples @ samples.T), flat))
            length = np.where(length > 0, length, 1.0)

            def read(rows: np.ndarray, samples=samples, length=length) -> np.ndarray:
                return (rows @ samples.T) @ flat.T / length

            if isinstance(values, TokenResiduals):
                scaled = values.at(layer, read, draws * traits)
            else:
                scaled = read(values[:, layer].astype(float))
            whole[:, :, layer] = scaled.reshape(-1, draws, traits).transpose(1, 0, 2)
        return whole

    def blocks(self, size: int) -> Iterator[Directions]:
        """The same draws, `size` at a time."""
        for start in range(0, self.draws, size):
            yield Directions(self.samples, self.weights[start : start + size])


def themselves(vectors: Float[np.ndarray, "trait layer dim"]) -> Directions:
    """The traits' own vectors, as one draw.

    >>> themselves(np.ones((2, 3, 5))).draws
    1
    """
    return Directions(vectors, np.eye(len(vectors))[None])


def matched(
    samples: Float[np.ndarray, "sample layer dim"],
    traits: int,
    generator: np.random.Generator,
    draws: int,
) -> Directions:
    """Random directions with the covariance of `samples` about their mean.

    >>> draw = np.random.default_rng(0)
    >>> matched(draw.normal(size=(9, 3, 5)), 2, draw, 4).weights.shape
    (4, 2, 9)
    """
    centred = samples - samples.mean(axis=0, dtype=float)
    return Directions(centred, generator.normal(size=(draws, traits, len(samples))))


def placebo(
    vectors: Float[np.ndarray, "placebo layer dim"],
    traits: int,
    generator: np.random.Generator,
    draws: int,
) -> Directions:
    """Different sets of placebo traits, `draws` or all that there are, in any order and sign.

    >>> placebo(np.ones((4, 3, 5)), 3, np.random.default_rng(0), 500).draws
    4
    """
    count = len(vectors)
    if math.comb(count, traits) <= draws:
        sets = list(itertools.combinations(range(count), traits))
    else:
        different: dict[tuple[int, ...], None] = {}
        while len(different) < draws:
            different[tuple(sorted(generator.permutation(count)[:traits].tolist()))] = None
        sets = list(different)
    weights = np.zeros((len(sets), traits, count))
    for number, chosen in enumerate(sets):
        order = generator.permutation(np.array(chosen, int))
        weights[number, np.arange(traits), order] = generator.choice([-1.0, 1.0], traits)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return Directions(vectors / np.where(length > 0, length, 1.0), weights)


def largest(
    directions: Directions,
    statistic: Statistic,
    *values: Values,
    places: Iterable[int] | None = None,
) -> Float[np.ndarray, draw]:
    """The largest statistic of each draw's directions, some draws at a time.

    `places` are the layers that the statistic looks at, if not all.

    >>> draw = np.random.default_rng(0)
    >>> means = draw.normal(size=(7, 3, 5))
    >>> directions = matched(means, 2, draw, 4)
    >>> largest(directions, lambda projected: projected.mean(axis=(1, 2)), means).shape
    (4,)
    """
    traits = directions.weights.shape[1]
    of_a_draw = 8 * traits * sum(math.prod(array.shape[:2]) for array in values)
    size = max(BLOCK // max(of_a_draw, 1), 1)
    drawn = [
        statistic(*(block.projected(array, places) for array in values)).max(axis=1)
        for block in directions.blocks(size)
    ]
    return np.concatenate(drawn)


def p_of(
    observed: Float[np.ndarray, trait], null: Float[np.ndarray, draw]
) -> Float[np.ndarray, trait]:
    """The share of draws whose best goes as far: (1 + #≥) / (draws + 1).

    >>> p_of(np.array([3.0, 1.0]), np.array([0.0, 1.0, 2.0])).tolist()
    [0.25, 0.75]
    """
    reach = observed - 1e-9 * np.abs(observed)
    return (1 + (null[:, None] >= reach).sum(axis=0)) / (len(null) + 1)


def absolute_t(rows: Float[np.ndarray, "draw row trait"]) -> Float[np.ndarray, "draw trait"]:
    """|t| of the mean over rows, for every draw and trait; 0 where all rows are 0.

    >>> absolute_t(np.array([[[1.0], [2.0], [3.0]]])).round(2).item()
    3.46
    """
    error = rows.std(axis=1, ddof=1) / np.sqrt(rows.shape[1])
    size = np.abs(rows.mean(axis=1))
    return size / np.maximum(error, 1e-15 + 1e-12 * size)


def projections(
    values: Values,
    draws: Iterable[Float[np.ndarray, "trait layer dim"]],
    places: Iterable[int] | None = None,
) -> Iterator[Float[np.ndarray, "row layer trait"]]:
    """The scores of every row by each draw of unit vectors; NaN at layers that are not kept.

    And at those that are not among the `places` on the layer axis, where these are given.

    >>> next(projections(np.ones((2, 3, 4)), iter([np.ones((1, 3, 4))]))).shape
    (2, 3, 1)
    """
    remaining = iter(draws)
    while batch := list(itertools.islice(remaining, BATCH)):
        whole = np.stack(batch)
        flat = whole.reshape(-1, *whole.shape[2:])
        found = np.full((*whole.shape[:2], len(values), flat.shape[1]), np.nan)
        for place in range(flat.shape[1]) if places is None else places:
            read = _at(values, place, flat[:, place])
            found[..., place] = read.T.reshape(*whole.shape[:2], len(values))
        yield from np.moveaxis(found, 1, -1)


def _at(values: Values, place: int, directions: Float[np.ndarray, "direction dim"]) -> np.ndarray:
    if isinstance(values, TokenResiduals):
        return values.at(place, partial(_along, directions), len(directions))
    return _along(directions, values[:, place])


def _along(directions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return tokens @ directions.T
