"""When does exploiting begin? The token that the trait score points at, against a constant."""

import numpy as np
from jaxtyping import Float, Int


def begins(
    score: Float[np.ndarray, "token"],
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
    onset: Int[np.ndarray, "row"],
    guess: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The distance in tokens of the predicted onset, and of a constant guess, for every row.

    >>> score = np.r_[np.zeros(6), np.ones(6)][None]
    >>> [error.tolist() for error in errors(score, np.array([6]), 2)]
    [[0], [4]]
    """
    predicted = np.array([begins(row) for row in scores])
    return np.abs(predicted - onset), np.abs(guess - onset)
