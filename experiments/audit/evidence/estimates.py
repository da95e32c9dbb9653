"""Estimates of detection with two intervals: for these kinds of prompt, and for other kinds."""

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from experiments.audit.evidence.choice import balanced_accuracy
from experiments.audit.evidence.relabel import two_sided, within_bias_auroc
from traits.statistics import cluster_bootstrap, over_kinds
from traits.statistics.bootstrap import Statistic
from traits.statistics.kinds import FEWEST

TRAIT_SCORE = "trait score"
LIMITS = {"auroc": (0.0, 1.0), "balanced": (0.0, 1.0), "gain": (-1.0, 1.0), "r": (-1.0, 1.0)}


def intervals(
    scores: Mapping[str, np.ndarray],
    label: np.ndarray,
    bias: np.ndarray,
    group: np.ndarray,
    threshold: float,
    generator: np.random.Generator,
    repetitions: int,
) -> xr.Dataset:
    """`estimate` with two 95 % intervals over `quantity`, each a mean over biases.

    `low` and `high` are conditional on these biases and their outcomes; `kinds_low` and
    `kinds_high` hold for other biases (`traits.statistics.over_kinds`; NaN below 3 `kinds`).
    `scores` maps a name to one score a response; the first is the primary. Quantities: `auroc
    <name>`, `gain over <name>` (the primary's AUROC minus the other's, drawn together), `balanced
    accuracy` of the primary at `threshold`, and `r`, its point-biserial correlation with
    exploiting. For `low` and `high` prompts are drawn again within bias and outcome (whether any
    sample exploits). Where a draw has a single outcome in every bias, since no prompt is without
    exploiting samples, they are NaN.

    >>> draw = np.random.default_rng(0)
    >>> label, names = np.tile([1, 0], 10), np.arange(20)
    >>> estimates = intervals({"a": label + 0.1}, label, np.array(["v"] * 20), names, 0.5, draw, 9)
    >>> estimates.sel(quantity="auroc a")["estimate"].item()
    1.0
    """
    names = list(scores)
    rows = xr.DataArray(
        np.column_stack(list(scores.values())).astype(float),
        dims=("prompt", "name"),
        coords={
            "label": ("prompt", label),
            "bias": ("prompt", np.unique(bias, return_inverse=True)[1]),
            "group": ("prompt", np.unique(group, return_inverse=True)[1]),
            "stratum": ("prompt", outcome_strata(label, bias, group)),
        },
    )
    quantities = [
        *(f"auroc {name}" for name in names),
        *(f"gain over {name}" for name in names[1:]),
        "balanced accuracy",
        "r",
    ]

    def statistic(drawn: xr.DataArray) -> xr.DataArray:
        values = _quantities(drawn.values, drawn["label"].values, drawn["bias"].values, threshold)
        return xr.DataArray(values, dims="quantity")

    drawn = cluster_bootstrap(
        rows, statistic, generator=generator, strata="stratum", repetitions=repetitions
    )
    whole = beside_kinds(drawn, rows, statistic, generator, repetitions)
    limits = np.array([LIMITS[name.split()[0]] for name in quantities]).T
    for name in ("kinds_low", "kinds_high"):
        whole[name] = whole[name].clip(*limits)
    return whole.assign_coords(quantity=quantities).drop_attrs()


def beside_kinds(
    conditional: xr.Dataset,
    rows: xr.DataArray,
    statistic: Statistic[xr.DataArray],
    generator: np.random.Generator,
    repetitions: int,
) -> xr.Dataset:
    """A bootstrap's bounds with those for other kinds beside them: `kinds_low`, `kinds_high`.

    `rows` carry `bias` and, where outcomes matter, `label`: biases with one outcome are left out.
    `kinds` counts the others; below 3 the bounds are NaN.

    >>> data = xr.DataArray([1.0, 2.0], {"bias": ("prompt", ["v", "w"])}, "prompt")
    >>> one = xr.Dataset({"estimate": 1.5, "low": 1.0, "high": 2.0})
    >>> whole = beside_kinds(one, data, "mean", np.random.default_rng(0), 9)
    >>> whole["kinds"].item(), whole["kinds_low"].item()
    (2, nan)
    """
    if "label" in rows.coords:
        names = two_sided(rows["label"].values, rows["bias"].values)
        rows = rows.isel(prompt=np.flatnonzero(np.isin(rows["bias"].values, names)))
    kinds = len(set(rows["bias"].values.tolist()))
    none = xr.full_like(conditional["estimate"], np.nan, float)
    whole = conditional.assign(kinds_low=none, kinds_high=none, kinds=kinds)
    if kinds < FEWEST:
        return whole
    group = "group" if "group" in rows.coords else None
    others = over_kinds(rows, statistic, generator=generator, group=group, repetitions=repetitions)
    return whole.assign(kinds_low=others["low"], kinds_high=others["high"])


def bounds(
    intervals: xr.Dataset | None, quantity: str, kinds: str = ""
) -> tuple[float, float, float]:
    """(estimate, low, high) of a quantity; NaN where there is none.

    `kinds` is empty for these kinds of prompt, and `kinds_` for others (`beside_kinds`).

    >>> bounds(None, "auroc trait score")
    (nan, nan, nan)
    """
    if intervals is None or quantity not in intervals["quantity"].values:
        return math.nan, math.nan, math.nan
    here = intervals.sel(quantity=quantity)
    return float(here["estimate"]), float(here[f"{kinds}low"]), float(here[f"{kinds}high"])


def kinds_bounds(intervals: xr.Dataset | None, quantity: str) -> tuple[float, float, float]:
    """(estimate, low, high) of a quantity for other kinds of prompt; NaN where there is none.

    >>> kinds_bounds(None, "auroc trait score")
    (nan, nan, nan)
    """
    return bounds(intervals, quantity, "kinds_")


def outcome_strata(label: np.ndarray, bias: np.ndarray, group: np.ndarray) -> list[str]:
    """What a bootstrap over prompts keeps: the bias, and whether any sample of it exploits.

    >>> outcome_strata(np.array([0, 1, 0]), np.array(["v"] * 3), np.array(["a", "a", "b"]))
    ['v|1', 'v|1', 'v|0']
    """
    outcome = {name: int(label[group == name].max()) for name in set(group.tolist())}
    return [f"{b}|{outcome[g]}" for b, g in zip(bias.tolist(), group.tolist(), strict=True)]


def mean_interval(
    values: np.ndarray,
    group: np.ndarray,
    generator: np.random.Generator,
    repetitions: int,
    bias: np.ndarray | None = None,
) -> xr.Dataset:
    """The mean over prompts, with its 95 % interval: `estimate`, `low`, `high`.

    With the `bias` of each row, also `kinds_low`, `kinds_high` and `kinds` (`beside_kinds`), of
    the mean over biases.

    >>> mean_interval(np.ones(4), np.arange(4), np.random.default_rng(0), 9)["low"].item()
    1.0
    """
    rows = xr.DataArray(values, dims="prompt", coords={"group": ("prompt", group)})
    interval = cluster_bootstrap(rows, "mean", generator=generator, repetitions=repetitions)
    if bias is not None:
        rows = rows.assign_coords(bias=("prompt", bias))
        interval = beside_kinds(interval, rows, "mean", generator, repetitions)
    return interval.drop_attrs()


def point_biserial(score: np.ndarray, label: np.ndarray, bias: np.ndarray) -> float:
    """The mean over biases of the correlation of score and label; 0 where the score is constant.

    Biases with a single outcome are left out; NaN where there is no other.

    >>> point_biserial(np.array([1.0, 2.0]), np.array([0, 1]), np.array(["v", "v"]))
    1.0
    """
    correlations = []
    for name in two_sided(label, bias):
        one, other = score[bias == name].astype(float), label[bias == name].astype(float)
        one, other = one - one.mean(), other - other.mean()
        scale = np.sqrt((one**2).sum() * (other**2).sum())
        correlations.append((one * other).sum() / scale if scale > 0 else 0.0)
    return float(np.mean(correlations)) if correlations else math.nan


def _quantities(
    values: np.ndarray, label: np.ndarray, bias: np.ndarray, threshold: float
) -> np.ndarray:
    if not two_sided(label, bias):
        # a draw that says nothing: the bootstrap counts it, and no interval rests on it
        return np.full(2 * values.shape[1] + 1, np.nan)
    areas = within_bias_auroc(values, label[None], bias)[0]
    primary = values[:, 0]
    accuracy = balanced_accuracy(primary, label, bias, threshold)
    r = point_biserial(primary, label, bias)
    return np.array([*areas, *(areas[0] - areas[1:]), accuracy, r])
