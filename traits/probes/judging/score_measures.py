"""What is measured of scores and labels: how well they tell, how right their chances are."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy.special import expit

from traits.probes.threshold import exact_interval
from traits.statistics import rank_auroc
from traits.vectors.measures import calibration_error

BINS = 10
Scores = Float[np.ndarray, "row"]
Labels = Shaped[np.ndarray, "row"]


def names_of(rates: Sequence[float]) -> list[str]:
    """The measures by name, those of `rates` among them.

    >>> names_of([0.01])[:2]
    ['auroc', 'recall_at_0.01']
    """
    at = [f"recall_at_{rate:g}" for rate in rates]
    return ["auroc", *at, "brier", "calibration_error", "recall", "false_positive_rate"]


def measured(
    score: Scores, label: Labels, chance: Scores, threshold: float, rates: Sequence[float]
) -> Float[np.ndarray, "measure"]:
    """The measures of `names_of`, NaN where they have no value.

    AUROC; recall above all but a share `rates` of these negatives (NaN where they are fewer than
    one over the rate, which they cannot tell); of the chances the Brier score and the calibration
    error (the mean distance of chance and rate over ten bins of equal count); recall and the rate
    of false positives above `threshold`.

    >>> score, label = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    >>> measured(score, label, score, 0.3, [0.5])[:2].tolist()
    [0.75, 1.0]
    """
    positive, negative = score[label == 1], score[label == 0]
    both = bool(len(positive) and len(negative))
    area = float(rank_auroc(positive, negative)) if both else np.nan
    told = np.isfinite(chance).all()
    values = [
        area,
        *(recall_at(positive, negative, rate) for rate in rates),
        np.mean((chance - label) ** 2) if told else np.nan,
        calibration_error(chance, label.astype(float), BINS) if told else np.nan,
        *(_share_above(side, threshold) for side in (positive, negative)),
    ]
    return np.array(values, float)


def recall_at(positive: np.ndarray, negative: np.ndarray, rate: float) -> float:
    """The share of positives above all but a share `rate` of the negatives.

    >>> recall_at(np.array([1.0, 3.0]), np.array([0.0, 2.0]), 0.5)
    1.0
    >>> recall_at(np.array([1.0, 3.0]), np.array([0.0, 2.0]), 0.01)
    nan
    """
    allowed = int(np.floor(rate * len(negative) + 1e-9))
    if not allowed or not len(positive):
        return float("nan")
    # the places from which partition sorts are those of the highest
    bar = (
        -np.inf if allowed >= len(negative) else np.partition(negative, -allowed - 1)[-allowed - 1]
    )
    return float((positive > bar).mean())


def chances(score: Scores, calibration: Float[np.ndarray, "2"]) -> Scores:
    """The chance of the positive class by a calibration's slope and intercept; NaN without one.

    >>> chances(np.array([0.0, 10.0]), np.array([1.0, 0.0])).round(2).tolist()
    [0.5, 1.0]
    """
    slope, intercept = calibration
    return expit(slope * score + intercept)


def calibration_curve(chance: Scores, label: Labels) -> xr.Dataset:
    """Chance and observed rate over ten `bin`s of equal count, with the rate's exact interval.

    Bins of rows that are no independent units have intervals that are too narrow.

    >>> curve = calibration_curve(np.linspace(0, 1, 20), np.repeat([0, 1], 10))
    >>> curve["curve_rate"].values.tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    parts = np.array_split(np.argsort(chance, kind="stable"), BINS)
    parts = [part for part in parts if len(part)]
    hits = [int((label[part] == 1).sum()) for part in parts]
    bounds = np.array([exact_interval(n, len(p)) for n, p in zip(hits, parts, strict=True)])
    sizes = np.array([len(part) for part in parts])
    curve = {
        "chance": [chance[part].mean() for part in parts],
        "rate": np.array(hits) / sizes,
        "low": bounds[:, 0],
        "high": bounds[:, 1],
        "n": sizes,
    }
    return xr.Dataset({f"curve_{name}": ("bin", value) for name, value in curve.items()})


def _share_above(side: Scores, threshold: float) -> float:
    there = len(side) and np.isfinite(threshold)
    return float((side > threshold).mean()) if there else float("nan")
