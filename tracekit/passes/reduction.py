"""What a trace keeps of a value: code that travels to a remote server, so it needs torch alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

Reducer = Callable[[torch.Tensor], torch.Tensor]


def keep(
    value: torch.Tensor,
    index: torch.Tensor,
    sizes: list[int],
    reduce: str | Reducer | None,
    directions: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is kept of one layer, and one number a kept token that is finite if the token is.

    `value` is (row, column, …) or already flat over rows and columns; `index` holds the kept
    places among rows × columns, `sizes` how many of them each row has. Kept are the values of
    those tokens, with `reduce` one a row, with `directions` (trait, dim) the dot products; the
    number is the sum over dims, and with `directions` the norm.
    """
    flat = value.reshape(-1, value.shape[-1]) if value.ndim <= 3 else value.flatten(0, 1)
    values = flat.index_select(0, index.to(flat.device)).flatten(1)
    if directions is not None:
        wide = values.float()
        return wide @ directions.to(wide.device).T, torch.linalg.vector_norm(wide, dim=-1)
    # a sum is one pass without a copy; isfinite makes a table of booleans first
    sums = values.sum(-1, dtype=torch.float32)
    if reduce is None:
        return values, sums
    if reduce == "mean":
        lengths = torch.tensor(sizes, device=values.device)
        return torch.segment_reduce(values.float(), "mean", lengths=lengths, axis=0), sums
    return torch.stack([reduce(row.float()) for row in values.split(sizes)]), sums  # type: ignore[operator]
