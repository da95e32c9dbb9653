"""Directions that know nothing, sent through the same choice of layer, weights and threshold.

A response's mean cosine with any direction is the dot product with the mean of its residuals
scaled to length one, so that one saved array (prompt, layer, dim) serves every direction.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.audit.evidence.detection import Scores, choose, composite
from experiments.audit.evidence.relabel import within_bias_auroc
from traits.vectors.methods import Pairs, mean_diff
from traits.vectors.nulls import covariance_matched, shuffled_pairs

Directions = Float[np.ndarray, "trait layer dim"]


def null_areas(
    means: Float[np.ndarray, "row layer dim"],
    rows: Scores,
    calibration: np.ndarray,
    allowed: np.ndarray,
    directions: Iterable[Directions],
) -> Float[np.ndarray, "draw"]:
    """The held-out composite AUROC of each draw of directions, chosen like the traits' own.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["v"] * 8), np.arange(8)
    >>> rows = Scores(np.zeros((8, 3, 1)), np.tile([1, 0], 4), *names)
    >>> means = draw.normal(size=(8, 3, 5))
    >>> null = (draw.normal(size=(2, 3, 5)) for _ in range(4))
    >>> null_areas(means, rows, np.arange(8) < 4, np.arange(3), null).shape
    (4,)
    """
    areas = []
    for vectors in directions:
        values = np.einsum("rld,tld->rlt", means, unit(vectors), optimize=True)
        scores = Scores(values, rows.label, rows.bias, rows.group)
        chosen = choose(scores.rows(calibration), allowed)
        held = scores.rows(~calibration)
        area = within_bias_auroc(composite(held, chosen)[:, None], held.label[None], held.bias)
        areas.append(area[0, 0])
    return np.array(areas)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one along the last axis; a vector of zeros stays.

    >>> unit(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def matched_directions(
    differences: Float[np.ndarray, "row layer dim"],
    traits: int,
    generator: np.random.Generator,
    draws: int,
) -> Iterator[Directions]:
    """Sets of `traits` random directions in the covariance of organism − clean differences.

    >>> differences = np.random.default_rng(0).normal(size=(9, 3, 5))
    >>> next(matched_directions(differences, 2, np.random.default_rng(0), 1)).shape
    (2, 3, 5)
    """
    made = covariance_matched(generator, differences)
    for _ in range(draws):
        yield np.stack([made(differences, differences) for _ in range(traits)])


def shuffled_directions(
    pairs: list[tuple[Pairs, Pairs]], generator: np.random.Generator, draws: int
) -> Iterator[Directions]:
    """Each trait's mean difference on its own pairs with the twins exchanged at random.

    >>> pairs = [(np.ones((4, 3, 5)), np.zeros((4, 3, 5)))]
    >>> next(shuffled_directions(pairs, np.random.default_rng(0), 1)).shape
    (1, 3, 5)
    """
    made = shuffled_pairs(mean_diff, generator)
    for _ in range(draws):
        yield np.stack([made(*sides) for sides in pairs])


def placebo_directions(
    vectors: Directions, traits: int, generator: np.random.Generator, draws: int
) -> Iterator[Directions]:
    """Sets of `traits` placebo traits drawn without replacement.

    >>> next(placebo_directions(np.ones((4, 3, 5)), 2, np.random.default_rng(0), 1)).shape
    (2, 3, 5)
    """
    for _ in range(draws):
        yield vectors[generator.choice(len(vectors), traits, replace=False)]


def without_massive(
    vectors: xr.DataArray, contrast: xr.DataArray, times: float = 20
) -> xr.DataArray:
    """Vectors with their massive dims set to zero: those of 20 times the median |activation|.

    `contrast` (prompt, layer, dim) are residuals of ordinary text of the model the vectors come
    from.

    >>> ones = xr.DataArray(np.ones((1, 2)), dims=("layer", "dim"))
    >>> text = xr.DataArray([[[1.0, 1.0, 99.0]]], dims=("prompt", "layer", "dim"))
    >>> without_massive(text[0] * 0 + 1, text).values.tolist()
    [[1.0, 1.0, 0.0]]
    """
    size = abs(contrast).mean("prompt")
    massive = size > times * size.median("dim")
    if "layer" in vectors.coords:
        massive = massive.sel(layer=vectors["layer"])
    return vectors.where(~massive, 0.0)
