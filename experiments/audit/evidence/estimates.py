"""Estimates of detection with their intervals: one bootstrap over prompts for all of them."""

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from experiments.audit.evidence.choice import balanced_accuracy
from experiments.audit.evidence.relabel import within_bias_auroc
from traits.statistics import cluster_bootstrap

TRAIT_SCORE = "trait score"


def intervals(
    scores: Mapping[str, np.ndarray],
    label: np.ndarray,
    bias: np.ndarray,
    group: np.ndarray,
    threshold: float,
    generator: np.random.Generator,
    repetitions: int,
) -> xr.Dataset:
    """`estimate`, `low`, `high` over `quantity`, 95 %, conditional on these biases.

    `scores` maps a name to one score a response; the first is the primary. Quantities: `auroc
    <name>` (mean within bias), `gain over <name>` (the primary's AUROC minus the other's, drawn
    together), `balanced accuracy` of the primary at `threshold`, and `r`, its within-bias
    point-biserial correlation with exploiting. Prompts are drawn again within bias and outcome
    (whether any sample exploits). Where a draw has a single outcome in every bias, since no prompt
    is without exploiting samples, there is no interval: `low` and `high` are NaN.

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
    return drawn.assign_coords(quantity=quantities).drop_attrs()


def bounds(intervals: xr.Dataset | None, quantity: str) -> tuple[float, float, float]:
    """(estimate, low, high) of a quantity; NaN where there is none.

    >>> bounds(None, "auroc trait score")
    (nan, nan, nan)
    """
    if intervals is None or quantity not in intervals["quantity"].values:
        return math.nan, math.nan, math.nan
    here = intervals.sel(quantity=quantity)
    return float(here["estimate"]), float(here["low"]), float(here["high"])


def outcome_strata(label: np.ndarray, bias: np.ndarray, group: np.ndarray) -> list[str]:
    """What a bootstrap over prompts keeps: the bias, and whether any sample of it exploits.

    >>> outcome_strata(np.array([0, 1, 0]), np.array(["v"] * 3), np.array(["a", "a", "b"]))
    ['v|1', 'v|1', 'v|0']
    """
    outcome = {name: int(label[group == name].max()) for name in set(group.tolist())}
    return [f"{b}|{outcome[g]}" for b, g in zip(bias.tolist(), group.tolist(), strict=True)]


def mean_interval(
    values: np.ndarray, group: np.ndarray, generator: np.random.Generator, repetitions: int
) -> xr.Dataset:
    """The mean over prompts, with its 95 % interval: `estimate`, `low`, `high`.

    >>> mean_interval(np.ones(4), np.arange(4), np.random.default_rng(0), 9)["low"].item()
    1.0
    """
    rows = xr.DataArray(values, dims="prompt", coords={"group": ("prompt", group)})
    interval = cluster_bootstrap(
        rows, lambda drawn: drawn.mean("prompt"), generator=generator, repetitions=repetitions
    )
    return interval.drop_attrs()


def point_biserial(score: np.ndarray, label: np.ndarray, bias: np.ndarray) -> float:
    """The correlation of score and label, both about their means within bias.

    >>> point_biserial(np.array([1.0, 2.0]), np.array([0, 1]), np.array(["v", "v"]))
    1.0
    """
    score, label = score.astype(float), label.astype(float)
    for name in np.unique(bias):
        rows = bias == name
        score[rows] -= score[rows].mean()
        label[rows] -= label[rows].mean()
    scale = np.sqrt((score**2).sum() * (label**2).sum())
    return float((score * label).sum() / scale) if scale > 0 else 0.0


def _quantities(
    values: np.ndarray, label: np.ndarray, bias: np.ndarray, threshold: float
) -> np.ndarray:
    if all(len(set(label[bias == name].tolist())) < 2 for name in np.unique(bias)):
        # a draw that says nothing: the bootstrap counts it, and no interval rests on it
        return np.full(2 * values.shape[1] + 1, np.nan)
    areas = within_bias_auroc(values, label[None], bias)[0]
    primary = values[:, 0]
    accuracy = balanced_accuracy(primary, label, threshold)
    r = point_biserial(primary.copy(), label, bias)
    return np.array([*areas, *(areas[0] - areas[1:]), accuracy, r])
