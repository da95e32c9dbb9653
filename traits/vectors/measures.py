"""What is measured of scores of twins: AUROCs, effects, calibrated chances."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from tracekit.errors import InputError
from traits.statistics import effect_size, rank_auroc

MEASURES = (
    "auroc",
    "effect_size",
    "concordance",
    "accuracy",
    "brier",
    "calibration_error",
)


def measure(scores: xr.Dataset) -> xr.DataArray:
    """Six measures of how well scores tell twins apart, over `measure` and dims besides `pair`.

    `scores` has, over `pair`: `positive` and `negative` (the scores), `chance_positive` and
    `chance_negative` (calibrated chances of being the positive side), and `threshold`. AUROC;
    paired effect size (d_z); concordance, the share of pairs with the positive twin above (ties
    a half); accuracy at the threshold; Brier score; and calibration error, the mean distance of
    chance and rate over five bins of equal count.

    >>> sides = {"positive": ("pair", [2.0, 3.0, 5.0]), "negative": ("pair", [1.0, 0.0, 2.0])}
    >>> scores = xr.Dataset({**sides, "threshold": 1.5})
    >>> measure(with_chances(scores, scores)).sizes["measure"]
    6
    """
    sides = ("positive", "negative")
    positive, negative = (scores[side].transpose(..., "pair").values for side in sides)
    chances = [scores[f"chance_{side}"].transpose(..., "pair").values for side in sides]
    chance, count = np.concatenate(chances, axis=-1), positive.shape[-1]
    outcome = np.repeat([1.0, 0.0], count)
    differences, threshold = positive - negative, scores["threshold"].item()
    right = (positive > threshold).mean(axis=-1) + (negative <= threshold).mean(axis=-1)
    values = [
        rank_auroc(positive, negative),
        # NaN where a bootstrap draws one pair again and again, which it counts
        effect_size(differences),
        (np.sign(differences) / 2 + 0.5).mean(axis=-1),
        right / 2,
        ((chance - outcome) ** 2).mean(axis=-1),
        calibration_error(chance, outcome),
    ]
    others = [dim for dim in scores["positive"].dims if dim != "pair"]
    named = xr.Variable(("measure", *others), np.stack(values))
    return xr.DataArray(named, coords={"measure": list(MEASURES)})


def with_chances(scores: xr.Dataset, calibration: xr.Dataset) -> xr.Dataset:
    """Scores with the chances that a logistic curve fitted on `calibration` gives them.

    The curve is Platt's: one slope and one intercept, on other pairs than those scored.

    >>> some = xr.Dataset({"positive": ("pair", [2.0, 3.0]), "negative": ("pair", [1.0, 0.0])})
    >>> float(with_chances(some, some)["chance_positive"][1]) > 0.5
    True
    """
    sides = [calibration[side].values for side in ("positive", "negative")]
    values = np.concatenate(sides)
    centre, scale = values.mean(), values.std()
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(
            f"The {values.size} calibration scores have the deviation {scale}: no curve can be "
            "fitted on them. Take pairs whose scores vary."
        )
    label = np.repeat([1, 0], [len(side) for side in sides])
    curve = LogisticRegression().fit((values[:, None] - centre) / scale, label)
    for side in ("positive", "negative"):
        chance = curve.predict_proba((scores[side].values[:, None] - centre) / scale)[:, 1]
        scores = scores.assign({f"chance_{side}": ("pair", chance)})
    return scores


def calibration_error(
    chance: Float[np.ndarray, "*other row"], outcome: Float[np.ndarray, "row"], bins: int = 5
) -> Float[np.ndarray, "*other"] | np.float64:
    """The mean distance between predicted chance and observed rate, over bins of equal count.

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), 2).item()
    0.1
    """
    order = np.argsort(chance, axis=-1, kind="stable")
    chances, outcomes = np.take_along_axis(chance, order, axis=-1), outcome[order]
    parts = [part for part in np.array_split(np.arange(len(outcome)), bins) if len(part)]
    gaps = [
        np.abs(chances[..., part].mean(axis=-1) - outcomes[..., part].mean(axis=-1))
        for part in parts
    ]
    return np.average(gaps, axis=0, weights=[len(part) for part in parts]).round(12)
