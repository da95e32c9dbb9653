"""What a trace keeps of a value: code that travels to a remote server, so it needs torch alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

Reducer = Callable[[torch.Tensor], torch.Tensor]


def keep(
    value: torch.Tensor,
    index: torch.Tensor,
    sizes: list[int],
    reduce: Reducer | None,
    directions: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """(values, whether all are finite[, norms]) of the kept tokens, on the value's device.

    `value` is (row, column, …) or already flat over rows and columns; `index` holds the kept
    places among rows × columns, `sizes` how many of them each row has. With `directions`
    (trait, dim) the values are dot products; with `reduce` there is one value a row.
    """
    flat = value.reshape(-1, value.shape[-1]) if value.ndim <= 3 else value.flatten(0, 1)
    values = flat.index_select(0, index.to(flat.device)).flatten(1)
    if directions is not None:
        wide = values.float()
        projected = wide @ directions.to(wide.device).T
        return projected, torch.isfinite(wide).all(), wide.norm(dim=-1)
    finite = torch.isfinite(values).all()
    if reduce is None:
        return values, finite
    return torch.stack([reduce(row.float()) for row in values.split(sizes)]), finite


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over a row's kept tokens: (token, dim) to (dim,)."""
    return values.mean(0)
