"""What is measured of scores of twins: AUROCs, effects, calibrated chances."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from tracekit.errors import InputError
from traits.statistics import effect_size, paired_auroc

MEASURES = (
    "auroc",
    "effect_size",
    "concordance",
    "accuracy",
    "brier",
    "calibration_error",
)


def measure(scores: xr.Dataset) -> xr.DataArray:
    """Six measures of how well scores tell twins apart, over `measure`.

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
    positive, negative = scores["positive"], scores["negative"]
    chance = np.concatenate([scores["chance_positive"].values, scores["chance_negative"].values])
    outcome = np.repeat([1.0, 0.0], len(chance) // 2)
    differences = (positive - negative).values
    above = np.sign(differences) / 2 + 0.5
    right = (positive > scores["threshold"]).mean() + (negative <= scores["threshold"]).mean()
    values = [
        paired_auroc(positive, negative).item(),
        # NaN where a bootstrap draws one pair again and again, which it counts
        effect_size(differences),
        above.mean(),
        right.item() / 2,
        ((chance - outcome) ** 2).mean(),
        calibration_error(chance, outcome),
    ]
    return xr.DataArray(np.array(values), dims="measure", coords={"measure": list(MEASURES)})


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
    chance: Float[np.ndarray, "row"], outcome: Float[np.ndarray, "row"], bins: int = 5
) -> float:
    """The mean distance between predicted chance and observed rate, over bins of equal count.

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]), 2)
    0.1
    """
    parts = np.array_split(np.argsort(chance, kind="stable"), bins)
    gaps = [abs(chance[part].mean() - outcome[part].mean()) for part in parts if len(part)]
    weights = [len(part) for part in parts if len(part)]
    return round(float(np.average(gaps, weights=weights)), 12)
