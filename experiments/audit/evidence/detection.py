"""Can exploiting responses be told from the others by trait scores? Chosen here, reported there.

Layer, weights and threshold come from the calibration biases alone; every number is of held-out
ones. The null exchanges the labels of the held-out biases (`relabel`), so its size is exact
whatever was chosen.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from experiments.audit.evidence.relabel import relabellings, within_bias_auroc
from traits.statistics import against_null, max_statistic


@dataclass(frozen=True)
class Scores:
    """Scores of responses (row, layer, trait) with what is known of each row."""

    values: Float[np.ndarray, "row layer trait"]
    label: Int[np.ndarray, "row"]
    bias: Shaped[np.ndarray, "row"]
    group: Shaped[np.ndarray, "row"]

    def rows(self, kept: np.ndarray) -> Self:
        """Those rows alone."""
        return type(self)(self.values[kept], self.label[kept], self.bias[kept], self.group[kept])

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
    centre: Float[np.ndarray, "trait"]
    weights: Float[np.ndarray, "trait"]
    threshold: float


def choose(calibration: Scores, allowed: Int[np.ndarray, "place"]) -> Choice:
    """The layer of the largest |AUROC − ½| of any trait, weights (LDA) and threshold there.

    Weights are the within-bias covariance's inverse times the difference of means; the threshold
    is the one of the best balanced accuracy, halfway to the next score.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 8), np.arange(8)
    >>> scores = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> choose(scores, np.arange(4)).weights.shape
    (2,)
    """
    rows, _, traits = calibration.values.shape
    flat = calibration.values[:, allowed].reshape(rows, -1)
    areas = within_bias_auroc(flat, calibration.label[None], calibration.bias)[0]
    strength = np.abs(areas - 0.5).reshape(len(allowed), traits).max(axis=1)
    layer = int(allowed[strength.argmax()])
    here = calibration.values[:, layer]
    centre, weights = _discriminant(here, calibration.label, calibration.bias)
    threshold = best_threshold((here - centre) @ weights, calibration.label)
    return Choice(layer, centre, weights, threshold)


def composite(scores: Scores, choice: Choice) -> Float[np.ndarray, "row"]:
    """One score a response, with the layer and weights that were chosen."""
    return (scores.values[:, choice.layer] - choice.centre) @ choice.weights


def detect(
    calibration: Scores,
    held_out: Scores,
    allowed: np.ndarray,
    generator: np.random.Generator,
    draws: int = 10_000,
) -> xr.Dataset:
    """The whole procedure: choose on calibration biases, test on held-out ones.

    Returns `area`, `statistic` (trait): the AUROC within bias and its standardised distance
    from ½ at the chosen layer; `p_trait` (max-T over traits) and `p`, the smallest of them;
    `composite` and `p_composite`: the AUROC of the weighted score, one-sided, since its sign was
    chosen; `layer` (a place on the axis).

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 8), np.arange(8)
    >>> scores = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> sorted(detect(scores, scores, np.arange(4), draw, 9).data_vars)[:3]
    ['area', 'composite', 'layer']
    """
    choice = choose(calibration, allowed)
    columns = np.column_stack([held_out.values[:, choice.layer], composite(held_out, choice)])
    exchanged = relabellings(held_out.label, held_out.bias, held_out.group, generator, draws)
    null = within_bias_auroc(columns, exchanged, held_out.bias)
    area = within_bias_auroc(columns, held_out.label[None], held_out.bias)[0]
    spread = np.maximum(null.std(axis=0), 1e-9)
    scaled = xr.DataArray((null[:, :-1] - 0.5) / spread[:-1], dims=("draw", "trait"))
    statistic = xr.DataArray((area[:-1] - 0.5) / spread[:-1], dims="trait")
    p = max_statistic(statistic, scaled, ["trait"])
    beside = against_null(xr.DataArray(area[-1]), xr.DataArray(null[:, -1], dims="draw"))
    return xr.Dataset(
        {
            "area": ("trait", area[:-1]),
            "statistic": statistic,
            "p_trait": p,
            "p": p.min(),
            "composite": area[-1],
            "p_composite": beside["p"],
            "null_deviation": spread[-1],
            "layer": choice.layer,
        }
    )


def best_threshold(score: np.ndarray, label: np.ndarray) -> float:
    """The threshold of the best balanced accuracy, halfway between two scores.

    >>> best_threshold(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]))
    1.5
    """
    order = np.argsort(score, kind="stable")
    ranked = label[order]
    above_hit = 1 - np.cumsum(ranked) / ranked.sum()
    below_rest = np.cumsum(1 - ranked) / (1 - ranked).sum()
    best = int((above_hit + below_rest)[:-1].argmax())
    return float(score[order[best : best + 2]].mean())


def balanced_accuracy(score: np.ndarray, label: np.ndarray, threshold: float) -> float:
    """The mean of the rates at which both kinds of response are called rightly.

    >>> balanced_accuracy(np.array([0.0, 1.0, 2.0]), np.array([0, 0, 1]), 0.5)
    0.75
    """
    called = score > threshold
    return float((called[label == 1].mean() + (~called[label == 0]).mean()) / 2)


def recall_at(score: np.ndarray, rest: np.ndarray, rate: float) -> tuple[float, float]:
    """The share of exploiting `score`s above all but `rate` of `rest`, and the rate attained.

    With fewer than 1 / rate negatives the threshold is their largest, and the rate attained 0.

    >>> recall_at(np.array([1.0, 3.0]), np.array([0.0, 2.0]), 0.5)
    (1.0, 0.5)
    """
    allowed = int(np.floor(rate * len(rest) + 1e-9))
    threshold = np.sort(rest)[::-1][allowed] if allowed < len(rest) else -np.inf
    return float((score > threshold).mean()), float((rest > threshold).mean())


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
