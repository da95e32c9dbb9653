"""Intervals of a share of responses, when several answer one prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm


def wilson(means: Sequence[float], samples: int = 1, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the mean of per-prompt shares of `samples` responses each.

    With one sample a prompt it is the usual one. With several it takes the effective number of
    responses, p(1 − p) / var(mean), between the number of prompts and of responses (Franco,
    Little, Louis & Slud, 2019): responses to one prompt are no independent units.

    >>> [round(bound, 2) for bound in wilson([1.0] * 10 + [0.0] * 10)]
    [0.3, 0.7]
    """
    n, p = float(len(means)), float(np.mean(means))
    if samples > 1 and 0 < p < 1 and n > 1:
        variance = float(np.var(means, ddof=1)) / n
        n = float(np.clip(p * (1 - p) / variance, n, n * samples)) if variance else n * samples
    z = norm.ppf((1 + level) / 2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
