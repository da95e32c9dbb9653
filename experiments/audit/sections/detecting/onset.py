"""The section on onset: the token that the trait score points at, against a constant guess."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.estimates import mean_interval
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.phases.projections import read

HEADING = "onset"


def begins(
    score: Float[np.ndarray, token],
    window: int = 5,
) -> int:
    """The token where the following `window` tokens exceed all before them by most.

    >>> begins(np.r_[np.zeros(6), np.ones(6)], 3)
    6
    """
    there = score[np.isfinite(score)]
    if len(there) <= window:
        return 0
    means = np.convolve(there, np.ones(window) / window, "valid")
    before = np.cumsum(there)[:-1] / np.arange(1, len(there))
    gains = means[1:] - before[: len(means) - 1]
    return 1 + int(gains.argmax())


def errors(
    scores: Float[np.ndarray, "row token"],
    onset: Int[np.ndarray, row],
    guess: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The distance in tokens of the predicted onset, and of a constant guess, for every row.

    >>> score = np.r_[np.zeros(6), np.ones(6)][None]
    >>> [error.tolist() for error in errors(score, np.array([6]), 2)]
    [[0], [4]]
    """
    predicted = np.array([begins(row) for row in scores])
    return np.abs(predicted - onset), np.abs(guess - onset)


def rows(audit: Audit) -> list[Row]:
    """The token that the trait score points at, against the calibration median, in tokens."""
    what, measure = "onset of exploiting", "constant guess's error − trait score's, tokens"
    if audit.reason:
        return [undecidable(HEADING, what, measure, audit.reason)]
    starts, hit = audit.rows["onset"].values, audit.rows["exploit"].values == 1
    calibration, held_out = (audit.part(name) & hit for name in ("calibration", "held_out"))
    group = audit.rows["group"].values[held_out]
    if (n := groups(group)) < 2:
        reason = f"{n} held-out prompt with an answer that exploits"
        return [undecidable(HEADING, what, measure, reason, n)]
    guess = int(np.median(starts[calibration]))
    ours, constant = errors(_by_token(audit)[held_out], starts[held_out], guess)
    generator = audit.generator("onset")
    gain = (constant - ours).astype(float)
    bias = audit.rows["bias"].values[held_out]
    interval = mean_interval(gain, group, generator, audit.settings.null.repetitions, bias)
    return [of_interval(HEADING, what, measure, interval, n)]


def _by_token(audit: Audit) -> Float[np.ndarray, "row token"]:
    own = read(audit.folder, "organism/organism").sel(prompt=audit.rows["prompt"].values)
    own = own.sel(trait=list(audit.traits), token=slice(0, None))
    own = own.isel(layer=audit.choice.layer).transpose("prompt", "token", "trait")
    return (own.values - audit.choice.centre) @ audit.choice.weights


SECTION = Section(
    HEADING, "Does the score point at the token where exploiting begins? In tokens.", rows
)
