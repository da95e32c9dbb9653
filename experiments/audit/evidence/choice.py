"""Scores of responses, and what calibration biases choose of them: layer, weights, threshold.

Nothing here sees a held-out bias; what is chosen is reported on those alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int, Shaped

from experiments.audit.evidence.relabel import two_sided, within_bias_auroc


@dataclass(frozen=True)
class Scores:
    """Scores of responses (row, layer, trait) with what is known of each row."""

    values: Float[np.ndarray, "row layer trait"]
    label: Int[np.ndarray, row]
    bias: Shaped[np.ndarray, row]
    group: Shaped[np.ndarray, row]

    def rows(self, which: np.ndarray) -> Self:
        """Those rows alone."""
        whole = (self.values, self.label, self.bias, self.group)
        return type(self)(*(column[which] for column in whole))

    def labelled(self, label: np.ndarray) -> Self:
        """The same scores under other labels."""
        return type(self)(self.values, label, self.bias, self.group)


@dataclass(frozen=True)
class Choice:
    """What calibration biases decided: a place on the layer axis, weights, and a threshold.

    A row's score is `(values[:, layer] − centre) @ weights`; above `threshold` it is called
    exploiting.
    """

    layer: int
    centre: Float[np.ndarray, trait]
    weights: Float[np.ndarray, trait]
    threshold: float


def allowed_layers(layers: np.ndarray, depth: tuple[float, float], blocks: int) -> np.ndarray:
    """Places on the layer axis whose layer lies in that part of the depth.

    >>> allowed_layers(np.arange(30), (0.2, 0.75), 30).tolist()[::16]
    [6, 22]
    """
    part = layers / blocks
    return np.flatnonzero((part >= depth[0] - 1e-9) & (part <= depth[1] + 1e-9))


def choose(calibration: Scores, allowed: Int[np.ndarray, place]) -> Choice:
    """The layer of the largest |AUROC − ½| of any trait, weights (LDA) and threshold there.

    Weights are the within-bias covariance's inverse times the difference of means; the threshold
    is the one of the best balanced accuracy, halfway to the next score.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 8), np.arange(8)
    >>> scores = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> choose(scores, np.arange(4)).weights.shape
    (2,)
    """
    layer = int(chosen_places(calibration.values[None], calibration, allowed)[0])
    here = calibration.values[:, layer]
    centre, weights = _discriminant(here, calibration.label, calibration.bias)
    threshold = best_threshold((here - centre) @ weights, calibration.label, calibration.bias)
    return Choice(layer, centre, weights, threshold)


def chosen_places(
    values: Float[np.ndarray, "draw row layer trait"],
    calibration: Scores,
    allowed: Int[np.ndarray, place],
) -> Int[np.ndarray, draw]:
    """For each draw of scores the place of the largest |AUROC − ½| of any of its traits.

    `calibration` says what the rows are; its own values are not looked at.

    >>> draw = np.random.default_rng(0)
    >>> rows = Scores(np.zeros((8, 4, 2)), np.tile([1, 0], 4), np.array(["v"] * 8), np.arange(8))
    >>> chosen_places(draw.normal(size=(5, 8, 4, 2)), rows, np.arange(4)).shape
    (5,)
    """
    draws, rows, _, traits = values.shape
    flat = values[:, :, allowed].transpose(1, 0, 2, 3).reshape(rows, -1)
    areas = within_bias_auroc(flat, calibration.label[None], calibration.bias)[0]
    strength = np.abs(areas - 0.5).reshape(draws, len(allowed), traits).max(axis=2)
    return allowed[strength.argmax(axis=1)]


def at_places(
    values: Float[np.ndarray, "draw row layer trait"], places: Int[np.ndarray, draw]
) -> Float[np.ndarray, "draw row trait"]:
    """Each draw's values at its own place on the layer axis.

    >>> at_places(np.arange(6.0).reshape(2, 1, 3, 1), np.array([0, 2])).ravel().tolist()
    [0.0, 5.0]
    """
    return np.take_along_axis(values, places[:, None, None, None], axis=2)[:, :, 0]


def composite(scores: Scores, choice: Choice) -> Float[np.ndarray, row]:
    """One score a response, with the layer and weights that were chosen."""
    return (scores.values[:, choice.layer] - choice.centre) @ choice.weights


def composite_auroc(scores: Scores, choice: Choice) -> float:
    """The AUROC within bias of that one score."""
    column = composite(scores, choice)[:, None]
    return float(within_bias_auroc(column, scores.label[None], scores.bias)[0, 0])


def best_threshold(score: np.ndarray, label: np.ndarray, bias: np.ndarray) -> float:
    """The threshold of the best balanced accuracy within bias, halfway between two scores.

    Equal scores are on one side; where all are equal it is their value.

    >>> best_threshold(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]), np.array(["v"] * 4))
    1.5
    """
    values, place = np.unique(score, return_inverse=True)
    right = np.cumsum(np.bincount(place, _shares(label, bias)))
    best = int(right[:-1].argmax()) if len(values) > 1 else 0
    return float(values[best : best + 2].mean())


def balanced_accuracy(
    score: np.ndarray, label: np.ndarray, bias: np.ndarray, threshold: float
) -> float:
    """The mean over biases of the rates at which both kinds of response are called rightly.

    So a score that tells biases apart and nothing within them has 0.5. Biases with a single
    outcome are left out.

    >>> balanced_accuracy(np.array([0, 1, 2]), np.array([0, 0, 1]), np.array(["v"] * 3), 0.5)
    0.75
    """
    called = score > threshold
    return float(0.5 - _shares(label, bias)[called].sum() / 2)


def _shares(label: np.ndarray, bias: np.ndarray) -> Float[np.ndarray, row]:
    """What each row called "not exploiting" adds to the mean rates: half a bias a side."""
    shares, names = np.zeros(len(label)), two_sided(label, bias)
    for name in names:
        hit, rest = (bias == name) & (label == 1), (bias == name) & (label == 0)
        shares[rest], shares[hit] = 1 / rest.sum(), -1 / hit.sum()
    return shares / max(len(names), 1)


def _discriminant(
    values: np.ndarray, label: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    centred, gaps = values.copy(), []
    for name in dict.fromkeys(bias.tolist()):
        rows = bias == name
        centred[rows] -= values[rows].mean(axis=0)
        if 0 < label[rows].sum() < rows.sum():
            sides = values[rows & (label == 1)], values[rows & (label == 0)]
            gaps.append(sides[0].mean(axis=0) - sides[1].mean(axis=0))
    scale = np.maximum(centred.std(axis=0), 1e-12)
    standard = centred / scale
    covariance = standard.T @ standard / len(standard) + 0.1 * np.eye(len(scale))
    weights = np.linalg.solve(covariance, np.mean(gaps, axis=0) / scale) / scale
    return values.mean(axis=0), weights
