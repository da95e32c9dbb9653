"""The poolings of plain arrays along their last axis: NaN are holes, and a row of them is NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

Values = Float[np.ndarray, "*row token"]


def _mean(values: Values) -> np.ndarray:
    there = ~np.isnan(values)
    count = there.sum(-1)
    total = np.where(there, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _max(values: Values) -> np.ndarray:
    return np.fmax.reduce(values, -1, initial=np.nan)


def _last(values: Values) -> np.ndarray:
    place = np.where(~np.isnan(values), np.arange(values.shape[-1]), -1).max(-1, initial=-1)
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    return np.take_along_axis(values, np.maximum(place, 0)[..., None], -1)[..., 0]


def _rolling_max(values: Values, width: int) -> np.ndarray:
    front, count = _front(values)
    whole = _mean(values)
    if front.shape[-1] < width:
        return whole
    windows = np.lib.stride_tricks.sliding_window_view(front, width, -1)
    return np.where(count < width, whole, _max(windows.mean(-1)))


def _top_k(values: Values, k: int) -> np.ndarray:
    # NaN are sorted to the end
    return _mean(-np.sort(-values, -1)[..., :k])


def _softmax(values: Values, temperature: float) -> np.ndarray:
    return weighted(values, values / temperature)


def weighted(values: Values, logits: Values) -> np.ndarray:
    """The mean weighted by exp(logits), over the values that are there.

    >>> weighted(np.array([1.0, np.nan, 3.0]), np.zeros(3)).item()
    2.0
    """
    there = ~np.isnan(values)
    logits = np.where(there, logits, -np.inf)
    top = logits.max(-1, initial=-np.inf, keepdims=True)
    weight = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(-1)
    along = (weight * np.where(there, values, 0.0)).sum(-1)
    return np.where(total > 0, along / np.where(total > 0, total, 1.0), np.nan)


def _ema(values: Values, decay: float, take: str) -> np.ndarray:
    front, _ = _front(values)
    there = ~np.isnan(front)
    given = np.where(there, front, 0.0), there.astype(np.float64)
    total, weight = (lfilter([1.0], [1.0, -decay], one, -1) for one in given)
    means = np.where(there, total / np.maximum(weight, 1.0), np.nan)
    return _max(means) if take == "max" else _last(means)


def _front(values: Values) -> tuple[Values, np.ndarray]:
    """What is there moved to the front of each row, and how much that is."""
    hole = np.isnan(values)
    order = np.argsort(hole, -1, kind="stable")
    return np.take_along_axis(values, order, -1), (~hole).sum(-1)


FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType(
    {
        "mean": _mean,
        "max": _max,
        "last": _last,
        "rolling_max": _rolling_max,
        "top_k": _top_k,
        "softmax": _softmax,
        "ema": _ema,
    }
)
