"""Contrasts at exploit spans by prompt, and how large they are at the layer that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import at_places
from experiments.audit.evidence.directions_null import absolute_t
from experiments.audit.evidence.standing import AGAIN, spans_of


@dataclass(frozen=True)
class Contrasts:
    """(adapter − clean) at exploit spans minus at matched spans: one row a prompt."""

    values: Float[np.ndarray, "prompt layer trait"]
    bias: Shaped[np.ndarray, prompt]

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self.bias)

    def rows(self, which: np.ndarray) -> Self:
        """Those prompts alone."""
        return type(self)(self.values[which], self.bias[which])

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
    biases = [str(bias[there & (group == name)][0]) for name in names]
    stacked = np.stack(means) if means else np.empty((0, *values.shape[1:]))
    return Contrasts(stacked, np.array(biases, dtype=np.str_))


def strengths(
    contrasts: Float[np.ndarray, "draw prompt layer trait"],
    calibration: Bool[np.ndarray, prompt],
    allowed: np.ndarray,
) -> Float[np.ndarray, "draw trait"]:
    """What the mechanism's test does, of many draws: |t| at the layer that each chooses.

    >>> contrasts = np.random.default_rng(0).normal(size=(5, 8, 3, 2))
    >>> strengths(contrasts, np.arange(8) < 4, np.arange(3)).shape
    (5, 2)
    """
    places = places_of(contrasts[:, calibration], allowed)
    return absolute_t(at_places(contrasts[:, ~calibration], places))


def places_of(
    calibration: Float[np.ndarray, "draw prompt layer trait"], allowed: np.ndarray
) -> Int[np.ndarray, draw]:
    """For each draw the place on the layer axis where the largest |t| of any trait lies.

    >>> places_of(np.random.default_rng(0).normal(size=(5, 8, 3, 2)), np.arange(3)).shape
    (5,)
    """
    rows = calibration[:, :, allowed]
    spread = np.maximum(rows.std(axis=1, ddof=1), 1e-12)
    strength = np.abs(rows.mean(axis=1)) / spread
    return allowed[strength.max(axis=2).argmax(axis=1)]


def unit_contrasts(
    audit: Audit, weights: str, other: str, where: str
) -> tuple[Float[np.ndarray, "prompt layer dim"], Bool[np.ndarray, prompt]] | str:
    """Unit means at spans minus at their matches, of one adapter minus another, by prompt.

    With which prompts are of calibration biases; or why there are none.
    """
    spans = audit.once(spans_of)
    if spans is None or not {weights, other} <= {*spans["weights"].values.astype(str)}:
        return f"no unit means at the spans of this run; {AGAIN}"
    here = spans.sel(match=where)
    apart = here.sel(weights=weights) - here.sel(weights=other)
    rows = audit.rows.sel(prompt=apart["prompt"].values)
    part, bias, group = (rows[name].values.astype(str) for name in ("part", "bias", "group"))
    first, held = (
        by_prompt(apart.values[part == name], bias[part == name], group[part == name])
        for name in ("calibration", "held_out")
    )
    values = np.concatenate([first.values, held.values])
    return values, np.arange(len(values)) < len(first)
