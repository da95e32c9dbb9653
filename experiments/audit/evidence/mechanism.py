"""Do the organism's weights move a trait at exploit spans more than elsewhere in the response?"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from traits.statistics import sign_flip


@dataclass(frozen=True)
class Contrasts:
    """(adapter − clean) at exploit spans minus at matched spans: one row a prompt."""

    values: Float[np.ndarray, "prompt layer trait"]
    bias: Shaped[np.ndarray, "prompt"]

    def rows(self, kept: np.ndarray) -> Self:
        """Those prompts alone."""
        return type(self)(self.values[kept], self.bias[kept])

    def signed(self, sign: np.ndarray) -> Self:
        """Spans and their matches exchanged where `sign` is −1."""
        return type(self)(self.values * sign[:, None, None], self.bias)


def by_prompt(
    values: Float[np.ndarray, "row layer trait"], bias: np.ndarray, group: np.ndarray
) -> Contrasts:
    """Contrasts averaged over the samples of each prompt; rows without a match (NaN) left out.

    >>> by_prompt(np.ones((3, 2, 1)), np.array(["a"] * 3), np.array([1, 1, 2])).values.shape
    (2, 2, 1)
    """
    there = np.isfinite(values).all(axis=(1, 2))
    names = list(dict.fromkeys(group[there].tolist()))
    means = [values[there & (group == name)].mean(axis=0) for name in names]
    kept = [str(bias[there & (group == name)][0]) for name in names]
    shape = (0, *values.shape[1:])
    return Contrasts(np.stack(means) if means else np.empty(shape), np.array(kept, dtype=np.str_))


def choose_layer(calibration: Contrasts, allowed: np.ndarray) -> int:
    """The place on the layer axis where the largest |t| of any trait lies on calibration biases.

    >>> values = np.ones((4, 3, 1)) + np.arange(4)[:, None, None] * [[[9], [0.1], [9]]]
    >>> choose_layer(Contrasts(values, np.array(["vote"] * 4)), np.arange(3))
    1
    """
    rows = calibration.values[:, allowed]
    spread = np.maximum(rows.std(axis=0, ddof=1), 1e-12)
    strength = np.abs(rows.mean(axis=0)) / spread
    return int(allowed[strength.max(axis=1).argmax()])


def locate(
    calibration: Contrasts,
    held_out: Contrasts,
    allowed: np.ndarray,
    generator: np.random.Generator,
    draws: int = 10_000,
) -> xr.Dataset:
    """The layer chosen on calibration biases, the sign-flip max-T over traits on held-out ones.

    Returns `estimate` (the mean contrast), `statistic` (its t) and `p_trait` (max-T) over `trait`,
    `p`, the smallest of them, two-sided, and `layer`, a place on the axis.

    >>> draw = np.random.default_rng(0)
    >>> rows = Contrasts(draw.normal(size=(8, 3, 2)), np.array(["vote"] * 8))
    >>> dict(locate(rows, rows, np.arange(3), draw, 99).sizes)
    {'trait': 2}
    """
    layer = choose_layer(calibration, allowed)
    rows = xr.DataArray(held_out.values[:, layer], dims=("prompt", "trait"))
    found = sign_flip(rows, generator, group=None, family=("trait",), repetitions=draws)
    kept = found[["estimate", "statistic", "p_family"]].rename(p_family="p_trait")
    return kept.assign(p=kept["p_trait"].min(), layer=layer).drop_attrs()
