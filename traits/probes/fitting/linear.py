"""Linear probes of one layer's rows: weights and offset in raw units, for targets and penalties.

Each is scikit-learn's own pipeline on the same matrix, its scaling divided out of the weights.
Where rows or dims are few the solution is that one in double precision, made in the span of the
data where rows are fewer (exact); what is larger goes to `large`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression, Ridge

from tracekit.errors import InputError
from traits.probes.fitting import large
from traits.probes.fitting.table import Table
from traits.vectors.methods import centred, discriminant, spanned

# the smaller of rows and dims up to which everything is in double precision, and the values
FEW, MANY = 1024, 1 << 23


@dataclass(frozen=True)
class Rows:
    """What a linear method is given of one layer: rows, and labels (1 or 0) and weights a target.

    `balanced` says whether both classes count the same, which `weight` already makes so.
    """

    table: Table
    label: Int[np.ndarray, "target row"]
    weight: Float[np.ndarray, "target row"]
    balanced: bool

    @property
    def small(self) -> bool:
        """Whether the rows are such that the fit is in double precision."""
        size = self.table.count * self.table.dim
        few = min(self.table.count, self.table.dim) <= FEW
        return self.table.whole is not None and few and size <= MANY


@dataclass(frozen=True)
class Solution:
    """A token's score is `weight` · residual + `offset`."""

    weight: Float[np.ndarray, " dim"]
    offset: float


Solutions = list[list[Solution]]  # of each target, one for each inverse penalty
Linear = Callable[[Rows, Sequence[float]], Solutions]
# a user's own: the weights of (row, dim) values with labels (row) and their weights (row)
Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def logistic(rows: Rows, inverse_penalty: Sequence[float]) -> Solutions:
    """`make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty))` with row weights.

    Large tables: by torch's LBFGS on single-precision products, all targets of a penalty at once;
    scores agree to about 1e-3 of their spread.
    """
    if not rows.small:
        return _large(rows, large.logistic, inverse_penalty)

    def solve(inside: np.ndarray, target: int, inverse: float) -> LogisticRegression:
        model = LogisticRegression(C=inverse, solver="newton-cholesky", tol=1e-8)
        return model.fit(inside, rows.label[target], sample_weight=rows.weight[target])

    return _inside(rows, inverse_penalty, solve)


def ridge(rows: Rows, inverse_penalty: Sequence[float]) -> Solutions:
    """`make_pipeline(StandardScaler(), RidgeClassifier(alpha=1 / inverse_penalty))`, row weights.

    Large tables: exactly too, by the weighted covariance of the standardised dims.
    """
    if not rows.small:
        return _large(rows, large.ridge, inverse_penalty)

    def solve(inside: np.ndarray, target: int, inverse: float) -> Ridge:
        model = Ridge(alpha=1 / inverse, solver="cholesky")
        return model.fit(inside, 2.0 * rows.label[target] - 1, rows.weight[target])

    return _inside(rows, inverse_penalty, solve)


def lda(rows: Rows, inverse_penalty: Sequence[float] = ()) -> Solutions:
    """`LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`, with even priors if balanced.

    As there, every row counts alike: rows have no weights. Large tables: exactly too, by the
    covariance of each class.
    """
    made = []
    for label in rows.label:
        share = 0.5 if rows.balanced else float(label.mean())
        if rows.small:
            whole = rows.table.whole
            assert whole is not None  # a small table is in memory
            weight = discriminant(whole[label == 1], whole[label == 0], share)
        else:
            weight = large.discriminant(rows.table, label, share)
        middle = large.class_means(rows.table, label, np.ones(len(label))).mean(0)
        offset = np.log(share / (1 - share)) - weight @ middle
        made.append([Solution(weight, float(offset))])
    return made


def mean_diff(rows: Rows, inverse_penalty: Sequence[float] = ()) -> Solutions:
    """The difference of the classes' weighted means; the offset makes their midpoint 0."""
    made = []
    for label, weight in zip(rows.label, rows.weight, strict=True):
        negative, positive = large.class_means(rows.table, label, weight)
        direction = positive - negative
        offset = -direction @ (positive + negative) / 2
        made.append([Solution(direction, float(offset))])
    return made


def by_function(function: Function, rows: Rows) -> Solutions:
    """What a function of (values, labels, weights) gives as weights; the midpoint of the classes'
    mean scores is 0.

    Errors: `ValueError` for anything but (dim), and for rows that do not fit into memory.
    """
    values = rows.table.whole
    if values is None:
        raise InputError(
            f"A function was given as method, and the {rows.table.count} rows of "
            f"{rows.table.dim} dims do not fit into memory. Take fewer rows, or rows='mean'."
        )
    made = []
    for label, weight in zip(rows.label, rows.weight, strict=True):
        direction = np.asarray(function(values, label, weight), np.float64)
        if direction.shape != values.shape[1:]:
            raise InputError(
                f"The method {getattr(function, '__name__', repr(function))!r} gave values of "
                f"shape {direction.shape} for rows of {values.shape}; a probe's weights are "
                f"(dim,) = {values.shape[1:]}."
            )
        middle = large.class_means(rows.table, label, weight).mean(0)
        made.append([Solution(direction, float(-direction @ middle))])
    return made


LINEAR: Mapping[str, Linear] = MappingProxyType(
    {"logistic": logistic, "mean_diff": mean_diff, "lda": lda, "ridge": ridge}
)
# those with a penalty to choose
PENALISED = ("logistic", "ridge")


def _inside(
    rows: Rows, inverse_penalty: Sequence[float], solve: Callable[..., LogisticRegression | Ridge]
) -> Solutions:
    """The fits of scikit-learn in the span of standardised rows, back in raw units."""
    whole = rows.table.whole
    assert whole is not None  # a small table is in memory
    mean = whole.mean(axis=0, dtype=np.float64)
    data, scale = centred(whole)
    data /= scale
    inside, outward = spanned(data)

    def raw(target: int, inverse: float) -> Solution:
        model = solve(inside, target, inverse)
        weight = outward(np.ravel(model.coef_)) / scale
        return Solution(weight, float(np.ravel(model.intercept_)[0] - weight @ mean))

    return [[raw(target, one) for one in inverse_penalty] for target in range(len(rows.label))]


def _large(
    rows: Rows, solver: Callable[..., tuple[np.ndarray, np.ndarray]], penalties: Sequence[float]
) -> Solutions:
    mean, scale = rows.table.moments()
    standard = rows.table.standardised(mean, scale)
    weights, offsets = solver(standard, rows.label, rows.weight, penalties)
    raw = weights / scale
    offsets = offsets - raw @ mean
    both = zip(raw, offsets, strict=True)
    return [[Solution(w, float(b)) for w, b in zip(*one, strict=True)] for one in both]
