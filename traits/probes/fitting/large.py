"""Linear probes of tables too large for double precision: in blocks, by moments or by LBFGS.

Beside the rows a fit holds a covariance or two (dim, dim), or a few weights a target; a table that
does not fit into memory is read once a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg
from scipy.linalg import blas
from scipy.special import expit

from traits.probes.fitting.table import BLOCK, Table
from traits.vectors.methods import shrinkage

Labels = Int[np.ndarray, "target row"]
Weights = Float[np.ndarray, "target row"]
Found = tuple[Float[np.ndarray, "target penalty dim"], Float[np.ndarray, "target penalty"]]


def class_means(
    table: Table, label: Int[np.ndarray, " row"], weight: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "2 dim"]:
    """The weighted means of the rows labelled 0, and of those labelled 1.

    >>> from traits.probes.fitting.table import of_array
    >>> class_means(of_array(np.array([[1.0], [3.0]])), np.array([0, 1]), np.ones(2)).tolist()
    [[1.0], [3.0]]
    """
    share = np.stack([weight * (label == value) for value in (0, 1)])
    share /= share.sum(1, keepdims=True)
    return np.asarray(
        sum(share[:, where] @ block.astype(np.float64) for where, block in table.blocks())
    )


def logistic(
    standard: Table, label: Labels, weight: Weights, inverse_penalty: Sequence[float]
) -> Found:
    """Logistic regression of standardised rows, all targets of a penalty in one minimisation."""
    import torch  # seconds, and most fits are small

    from traits.probes.networks.optimising import minimised

    class Loss(torch.autograd.Function):
        """The weighted log loss of all targets, whose gradient is made in the same pass."""

        @staticmethod
        def forward(ctx: Any, directions: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
            value, *gradients = _log_loss(
                standard, label, weight, directions.numpy(), offset.numpy()
            )
            ctx.save_for_backward(*[torch.from_numpy(one) for one in gradients])
            return torch.tensor(value, dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(outer[0] * one for one in ctx.saved_tensors)

    total = float(weight.sum())
    at: list[np.ndarray] = [np.zeros((standard.dim, len(label))), np.zeros(len(label))]
    directions, offsets = [], []
    for inverse in inverse_penalty:

        def objective(
            directions: torch.Tensor, offset: torch.Tensor, inverse: float = inverse
        ) -> torch.Tensor:
            loss = Loss.apply(directions, offset)
            # of one size whatever the penalty, since the solver's tolerances are absolute
            return (loss + directions.square().sum() / 2 / inverse) / total

        # from the last penalty's solution, which is near
        at = minimised(objective, at)
        directions.append(at[0].T)
        offsets.append(at[1])
    return np.stack(directions, 1), np.stack(offsets, 1)


def ridge(
    standard: Table, label: Labels, weight: Weights, inverse_penalty: Sequence[float]
) -> Found:
    """Ridge regression of ±1 on standardised rows, by their weighted covariance."""
    directions, offsets = [], []
    for truth, share in zip(2.0 * label - 1, weight, strict=True):
        whole = share.sum()
        passes = [(share[at] @ b, (share * truth)[at] @ b) for at, b in standard.blocks()]
        mean, along = (sum(one) / whole for one in zip(*passes, strict=True))
        level = float(share @ truth / whole)
        square, _ = gram(standard, mean, np.ones_like(mean), np.sqrt(share))
        found = []
        for inverse in inverse_penalty:
            system = square.astype(np.float64)
            system[np.diag_indices_from(system)] += 1 / inverse
            wanted = (along - level * mean) * whole
            found.append(_solved(system, wanted))
        directions.append(np.stack(found))
        offsets.append(level - directions[-1] @ mean)
    return np.stack(directions), np.stack(offsets)


def discriminant(
    table: Table, label: Int[np.ndarray, " row"], share: float
) -> Float[np.ndarray, " dim"]:
    """`methods.discriminant` of a large table: the covariance of each class, shrunk, in blocks."""
    covariance, means = np.zeros((table.dim, table.dim)), []
    for value, prior in ((0, 1 - share), (1, share)):
        side = table.take(label == value, copy=False)
        mean, scale = side.moments()
        square, fourth = gram(side, mean, scale, np.ones(side.count))
        square /= np.float32(side.count)
        shrunk, level = shrinkage(square, fourth / side.count, side.count)
        for row in range(0, table.dim, 512):
            part = slice(row, row + 512)
            block = square[part] * scale[part, None] * scale
            covariance[part] += prior * (1 - shrunk) * block
        covariance[np.diag_indices_from(covariance)] += prior * shrunk * level * scale**2
        means.append(mean)
        del square
    return _solved(covariance, means[1] - means[0])


def gram(
    table: Table,
    mean: Float[np.ndarray, " dim"],
    scale: Float[np.ndarray, " dim"],
    weight: Float[np.ndarray, " row"],
) -> tuple[Float[np.ndarray, "dim dim"], float]:
    """The products of dims over rows less `mean`, over `scale` and times `weight`: float32.

    With it the sum over rows of the square of their squared length.
    """
    made, fourth = np.zeros((table.dim, table.dim), np.float32, order="F"), 0.0
    for where, block in table.blocks():
        near = ((block - mean) / scale * weight[where, None]).astype(np.float32)
        # in place: a sum of products would hold another (dim, dim)
        made = blas.ssyrk(1.0, near.T, 1.0, made, overwrite_c=True)
        fourth += float(np.square(np.square(near, dtype=np.float64).sum(1)).sum())
    for first in range(0, table.dim, BLOCK):
        own, after = slice(first, first + BLOCK), slice(first + BLOCK, None)
        made[own, own] = np.triu(made[own, own]) + np.triu(made[own, own], 1).T
        made[after, own] = made[own, after].T
    return made, fourth


def _solved(
    system: Float[np.ndarray, "dim dim"], wanted: Float[np.ndarray, " dim"]
) -> Float[np.ndarray, " dim"]:
    # of the transposed, which is the same, LAPACK needs no copy: half a gigabyte at 8,192 dims
    factor = linalg.cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
    return linalg.cho_solve(factor, wanted, check_finite=False)


def _log_loss(
    standard: Table,
    label: Labels,
    weight: Weights,
    directions: Float[np.ndarray, "dim target"],
    offset: Float[np.ndarray, " target"],
) -> tuple[float, Float[np.ndarray, "dim target"], Float[np.ndarray, " target"]]:
    """The weighted log loss over all rows and targets, and its gradients."""
    single, value = directions.astype(np.float32), 0.0
    slope, level = np.zeros(directions.shape), np.zeros(offset.shape)
    for where, block in standard.blocks():
        scores = (block @ single).astype(np.float64) + offset
        truth, share = label[:, where].T, weight[:, where].T
        value += float((share * np.logaddexp(0, np.where(truth == 1, -scores, scores))).sum())
        error = share * (expit(scores) - truth)
        slope += block.T @ error.astype(np.float32)
        level += error.sum(0)
    return value, slope, level
