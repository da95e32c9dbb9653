"""From a pooled score to the chance of the positive class: Platt's curve, kept with the probe."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from tracekit.errors import InputError
from traits.probes.judging.report_rows import labelled


def calibrate(probe: xr.Dataset, scores: xr.DataArray, labels: xr.DataArray | str) -> xr.Dataset:
    """The probe with the curve that turns its pooled scores into chances of the positive class.

    `scores` (prompt), or (prompt, target), are pooled scores of responses that did not fit the
    probe; `labels` likewise are 1, 0 or NaN (left out), or the name of a coordinate. `traits.fit`
    does this on its part "select"; give responses of another place, or another share of
    positives, for chances that hold there.
    `calibration` is the slope and the intercept (see `platt`).

    Errors: `ValueError` for labels that do not match, of one class only, and scores that are not
    finite.

    >>> label = xr.DataArray(np.arange(40) % 2, dims="prompt")
    >>> scores = label + xr.DataArray(np.random.default_rng(0).normal(size=40), dims="prompt")
    >>> ready = calibrate(xr.Dataset(attrs={"kind": "probe"}), scores, label)
    >>> bool(ready["calibration"].sel(coefficient="slope") > 0)
    True
    """
    if "target" not in scores.dims:
        curves = _curve(scores, labels)
    else:
        names = list(scores["target"].values)
        each = [(scores.sel(target=one), _of_target(labels, one)) for one in names]
        curves = xr.concat([_curve(*one) for one in each], xr.DataArray(names, dims="target"))
    return probe.assign(calibration=curves.assign_coords(coefficient=["slope", "intercept"]))


def probability(probe: xr.Dataset, scores: xr.DataArray) -> xr.DataArray:
    """The chance of the positive class that a probe's calibration gives pooled scores.

    1 / (1 + exp(−(slope · score + intercept))), of scores (prompt) or (prompt, target); it holds
    for the share of positives among the responses of the calibration.

    Errors: `ValueError` for a probe without a calibration.

    >>> curve = ("coefficient", [2.0, -1.0]), {"coefficient": ["slope", "intercept"]}
    >>> probe = xr.Dataset({"calibration": curve[0]}, curve[1], {"kind": "probe"})
    >>> probability(probe, xr.DataArray([0.5, 9.0], dims="prompt")).values.round(2).tolist()
    [0.5, 1.0]
    """
    curve = probe.get("calibration")
    if curve is None or not np.isfinite(curve).all():
        raise InputError(
            "A chance was asked for, and the probe has no calibration: its part 'select' lacks "
            "labelled responses of both classes. Give some to traits.calibrate."
        )
    slope, intercept = (curve.sel(coefficient=name, drop=True) for name in ("slope", "intercept"))
    return expit(scores * slope + intercept).rename("probability")


def platt(score: Float[np.ndarray, "row"], label: Bool[np.ndarray, "row"]) -> np.ndarray:
    """The slope and intercept of the log-odds of a label over a score.

    By scikit-learn's `LogisticRegression` without a penalty on Platt's targets, which are
    (positives + 1) / (positives + 2) and 1 / (negatives + 2), so that classes that do not overlap
    have a curve too. Raises ValueError for labels all alike. Source: Platt 1999.

    >>> platt(np.array([0.0, 0.0, 0.0]), np.array([True, False, True])).round(2).tolist()
    [0.0, 0.45]
    """
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        raise InputError(
            f"A calibration needs both classes: {positive} responses are positive and {negative} "
            "negative. Label more responses."
        )
    target = np.where(label, (positive + 1) / (positive + 2), 1 / (negative + 2))
    centre, scale = score.mean(), score.std()
    if scale <= 1e-12 * abs(centre):
        return np.array([0.0, logit(target.mean())])
    column = ((score - centre) / scale)[:, None]
    # each row as both labels, as much as its target says
    twice = np.concatenate([column, column]), np.repeat([1, 0], len(score))
    curve = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    curve.fit(*twice, sample_weight=np.concatenate([target, 1 - target]))
    slope = curve.coef_[0, 0] / scale
    return np.array([slope, curve.intercept_[0] - slope * centre])


def _curve(scores: xr.DataArray, labels: xr.DataArray | str) -> xr.DataArray:
    rows = labelled(scores, labels, None)
    curve = platt(rows["score"].values.astype(float), rows["label"].values == 1)
    return xr.DataArray(curve, dims="coefficient")


def _of_target(labels: xr.DataArray | str, target: str) -> xr.DataArray | str:
    if isinstance(labels, str) or "target" not in labels.dims:
        return labels
    return labels.sel(target=target, drop=True)
