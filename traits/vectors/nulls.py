"""Directions that are no trait's, as methods: shuffled twins, matched noise, components."""

import numpy as np
from jaxtyping import Float

from tracekit.errors import InputError
from traits.vectors.methods import Method, Pairs, Vector, oriented


def shuffled_pairs(method: Method, *, generator: np.random.Generator) -> Method:
    """`method` on pairs whose twins are exchanged at random: what it finds where nothing is.

    The same exchanges at every layer, so that the null keeps the dependence between layers. The
    result is oriented by the exchanged pairs, which keeps it exchangeable with the true fit when
    there is no effect. Source: sign-flip permutation.

    >>> from traits.vectors.methods import mean_diff
    >>> null = shuffled_pairs(mean_diff, generator=np.random.default_rng(0))
    >>> null(np.ones((8, 2, 3)), np.zeros((8, 2, 3))).shape
    (2, 3)
    """

    def shuffled(positive: Pairs, negative: Pairs) -> Vector:
        swap = generator.integers(0, 2, size=len(positive)).astype(bool)[:, None, None]
        return method(np.where(swap, negative, positive), np.where(swap, positive, negative))

    return shuffled


def covariance_matched(
    *, generator: np.random.Generator, samples: Float[np.ndarray, "sample layer dim"] | None = None
) -> Method:
    """A random direction drawn from N(0, C), C the covariance of activations.

    C is that of both sides of the pairs about their own means, or of `samples` about theirs: for
    instance differences between two models on the same ids. One draw of the weights for all
    layers, not oriented by the pairs. Isotropic directions would miss the massive dims and call
    noise significant (with three such dims in 89 % of simulated runs; this null in 5 %).

    >>> null = covariance_matched(generator=np.random.default_rng(0))
    >>> draw = np.random.default_rng(1)
    >>> null(*draw.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """

    def matched(positive: Pairs, negative: Pairs) -> Vector:
        if samples is not None:
            _check_fit(samples.shape[1:], positive.shape[1:])
        sides = (positive, negative) if samples is None else (samples,)
        rows = np.concatenate([side - side.mean(axis=0, dtype=np.float64) for side in sides])
        return np.tensordot(generator.normal(size=len(rows)) / np.sqrt(len(rows)), rows, axes=1)

    return matched


def principal_component(number: int) -> Method:
    """The `number`-th principal component (from 1) of the activations, both sides together.

    Oriented by the pairs: what a direction of large variance reaches without being fitted.

    >>> draw = np.random.default_rng(1)
    >>> principal_component(2)(*draw.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """

    def component(positive: Pairs, negative: Pairs) -> Vector:
        both = np.moveaxis(np.concatenate([positive, negative]).astype(np.float64), 1, 0)
        both = both - both.mean(axis=1, keepdims=True)
        if not 1 <= number <= min(both.shape[1:]):
            raise InputError(
                f"Principal component {number} was asked for; {both.shape[1]} rows of dim "
                f"{both.shape[2]} have {min(both.shape[1:])}. Ask for one of them."
            )
        _, left = np.linalg.eigh(both @ both.transpose(0, 2, 1))
        return oriented(np.einsum("kn,knd->kd", left[..., -number], both), positive, negative)

    return component


def _check_fit(samples: tuple[int, ...], pairs: tuple[int, ...]) -> None:
    if samples != pairs:
        raise InputError(
            f"The samples have (layer, dim) {samples} and the pairs have {pairs}. "
            "Take the covariance from the same layers of the same model."
        )
