"""What the probes that are no linear algebra share: rows made ready, and torch's LBFGS."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from tracekit.errors import InputError

Parameters = dict[str, np.ndarray]
Rows = Float[np.ndarray, "row dim"]
BLOCK = 4096  # rows that are in double precision at a time
STEPS = 300


def standardised(
    rows: Rows, weight: Float[np.ndarray, "row"]
) -> tuple[Rows, Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
    """A float32 copy of rows less their mean and over their deviation, and these two.

    Both are weighted, in double precision; a dim that does not vary has the deviation 1.

    >>> standardised(np.array([[1.0], [3.0]]), np.ones(2))[0].tolist()
    [[-1.0], [1.0]]
    """
    share = weight / weight.sum()
    blocks = [slice(first, first + BLOCK) for first in range(0, len(rows), BLOCK)]
    centre = sum(share[block] @ rows[block].astype(float) for block in blocks)
    variance = sum(share[block] @ (rows[block] - centre) ** 2 for block in blocks)
    scale = np.sqrt(variance)
    # a mean of equal numbers differs from them by a rounding
    scale[scale <= 1e-12 * np.abs(centre)] = 1.0
    standard = np.empty(rows.shape, np.float32)
    for block in blocks:
        standard[block] = (rows[block] - centre) / scale
    return standard, centre, scale


def minimised(
    objective: Callable[..., torch.Tensor], starts: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The arrays at which `objective` of them is least, from `starts`, by torch's LBFGS.

    In double precision, by the strong Wolfe line search. Raises ValueError where the objective
    is not finite.

    >>> minimised(lambda value: (value - 3.0).square().sum(), [np.zeros(2)])[0].round(3).tolist()
    [3.0, 3.0]
    """
    parameters = [torch.tensor(start, dtype=torch.float64, requires_grad=True) for start in starts]
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=STEPS,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = objective(*parameters)
        loss.backward()
        return loss

    optimiser.step(closure)
    least = float(objective(*parameters).detach())
    if not np.isfinite(least):
        raise InputError(
            f"The probe's objective came to {least} after at most {STEPS} steps. Look at the "
            "values of the rows, or give a smaller inverse_penalty."
        )
    return [parameter.detach().numpy() for parameter in parameters]


def in_float32(arrays: Mapping[str, object]) -> Parameters:
    """Arrays in the precision in which a probe keeps them.

    >>> in_float32({"offset": 1.0})["offset"].dtype
    dtype('float32')
    """
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def refuse_rows(
    rows: Rows, label: Bool[np.ndarray, "row"], weight: Float[np.ndarray, "row"]
) -> None:
    """Errors: `ValueError` for rows that are not finite or vary nowhere, or for one label only.

    >>> refuse_rows(np.eye(2), np.array([True, False]), np.ones(2))
    """
    holes = int((~np.isfinite(rows).all(axis=1)).sum())
    if holes or not np.isfinite(weight).all() or (weight < 0).any():
        raise InputError(
            f"A probe was to be fitted on {len(rows)} rows, of which {holes} have values that are "
            "not finite, or on weights that are no shares. Leave these tokens out."
        )
    counts = [int((weight[label == side] > 0).sum()) for side in (True, False)]
    if min(counts) == 0:
        raise InputError(
            f"A probe needs rows of both labels: {counts[0]} are positive and {counts[1]} "
            "negative. Give labelled responses of both."
        )
    if not (rows != rows[0]).any():
        raise InputError(
            f"All {len(rows)} rows are the same: there is nothing to fit. Take other layers or "
            "tokens."
        )
