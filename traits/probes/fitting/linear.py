"""Linear probes of one layer's rows: weights and offset in raw units, a solution a penalty.

Each is scikit-learn's own pipeline on the same matrix, its scaling divided out of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from tracekit.errors import InputError
from traits.vectors.methods import centred


@dataclass(frozen=True)
class Rows:
    """What a linear method is given: rows of one layer, 1 or 0 a row, and how much each counts.

    `balanced` says whether both classes count the same, which `weight` already makes so.
    """

    values: Float[np.ndarray, "row dim"]
    label: Int[np.ndarray, row]
    weight: Float[np.ndarray, row]
    balanced: bool


@dataclass(frozen=True)
class Solution:
    """A token's score is `weight` · residual + `offset`."""

    weight: Float[np.ndarray, dim]
    offset: float


Linear = Callable[[Rows, Sequence[float]], list[Solution]]
# a user's own: the weights of (row, dim) values with labels (row) and their weights (row)
Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def logistic(rows: Rows, inverse_penalty: Sequence[float]) -> list[Solution]:
    """Logistic regression on standardised dims, a solution for each inverse penalty.

    `make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty))` with the rows'
    weights. With fewer rows than dims the fit is made in the span of the data, which is exact.

    >>> values = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> rows = Rows(values, np.array([0, 0, 1, 1]), np.ones(4), True)
    >>> [round(float(one.weight[0]), 2) for one in logistic(rows, [1.0])]
    [0.84]
    """
    data, scale = centred(rows.values)
    mean = rows.values.mean(axis=0, dtype=np.float64)
    data /= scale
    inside, outward = spanned(data)
    solutions = []
    for one in inverse_penalty:
        model = LogisticRegression(C=one, solver="newton-cholesky", tol=1e-8)
        model.fit(inside, rows.label, sample_weight=rows.weight)
        weight = outward(model.coef_[0]) / scale
        solutions.append(Solution(weight, float(model.intercept_[0] - weight @ mean)))
    return solutions


def mean_diff(rows: Rows, inverse_penalty: Sequence[float] = ()) -> list[Solution]:
    """The difference of the classes' means; the offset makes their midpoint 0.

    >>> rows = Rows(np.array([[0.0], [4.0]]), np.array([0, 1]), np.ones(2), True)
    >>> mean_diff(rows)[0].offset
    -8.0
    """
    positive, negative = (_mean(rows, value) for value in (1, 0))
    weight = positive - negative
    return [Solution(weight, float(-weight @ (positive + negative) / 2))]


def by_function(function: Function, rows: Rows) -> list[Solution]:
    """What a function of (values, labels, weights) gives as weights; the midpoint of the classes'
    mean scores is 0.

    >>> rows = Rows(np.array([[0.0], [4.0]]), np.array([0, 1]), np.ones(2), True)
    >>> by_function(lambda values, label, weight: np.ones(1), rows)[0].offset
    -2.0
    """
    weight = np.asarray(function(rows.values, rows.label, rows.weight), np.float64)
    if weight.shape != rows.values.shape[1:]:
        raise InputError(
            f"The method {getattr(function, '__name__', repr(function))!r} gave values of shape "
            f"{weight.shape} for rows of {rows.values.shape}; a probe's weights are (dim,) = "
            f"{rows.values.shape[1:]}."
        )
    middle = (_mean(rows, 1) + _mean(rows, 0)) / 2
    return [Solution(weight, float(-weight @ middle))]


LINEAR: Mapping[str, Linear] = MappingProxyType({"logistic": logistic, "mean_diff": mean_diff})
# those with a penalty to choose
PENALISED = ("logistic", "ridge")


def spanned(
    data: Float[np.ndarray, "row dim"],
) -> tuple[Float[np.ndarray, "row direction"], Callable[[np.ndarray], np.ndarray]]:
    """Rows in the span of the data where that is smaller, and weights there back among the dims.

    >>> inside, outward = spanned(np.ones((2, 5)))
    >>> inside.shape[1], outward(np.ones(inside.shape[1])).shape
    (1, (5,))
    """
    if data.shape[0] >= data.shape[1]:
        return data, lambda weight: weight
    value, left = np.linalg.eigh(data @ data.T)
    kept = value > value[-1] * len(value) * np.finfo(np.float64).eps
    singular, left = np.sqrt(value[kept]), left[:, kept]
    return left * singular, lambda weight: data.T @ (left @ (weight / singular))


def _mean(rows: Rows, value: int) -> Float[np.ndarray, dim]:
    side = rows.label == value
    weight = rows.weight[side] / rows.weight[side].sum()
    return weight @ rows.values[side].astype(np.float64)
