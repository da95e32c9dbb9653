"""What a trace keeps of a value: code that travels to a remote server, so it needs torch alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

Reducer = Callable[[torch.Tensor], torch.Tensor]


def keep(
    value: torch.Tensor,
    axes: int,
    sizes: list[int],
    reduce: str | Reducer | None,
    directions: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is kept of one layer, and one number a kept token that is finite if the token is.

    `value` is (kept, …), which with one of `axes` becomes (kept, dim); `sizes` are how many kept
    tokens each row (or part of one) has. Kept are the values of those tokens, with `reduce` one a
    row (NaN where a part has no token), with
    `directions` (trait, dim) the dot products along the last axis; the number is the sum over
    all axes, and with `directions` the norm along the last.
    """
    values = value.flatten(1) if axes == 1 else value
    if directions is not None:
        wide = values.float()
        return wide @ directions.to(wide.device).T, torch.linalg.vector_norm(wide, dim=-1)
    # a sum is one pass without a copy; isfinite makes a table of booleans first
    sums = values.flatten(1).sum(-1, dtype=torch.float32)
    if reduce is None:
        return values, sums
    if reduce == "mean":
        lengths = torch.tensor(sizes, device=values.device)
        return torch.segment_reduce(values.float(), "mean", lengths=lengths, axis=0), sums
    rows = [reduce(row.float()) for row in values.split(sizes) if len(row)]  # type: ignore[operator]
    if len(rows) == len(sizes):
        return torch.stack(rows), sums
    shape = rows[0].shape if rows else values.shape[1:]
    filled = torch.full((len(sizes), *shape), torch.nan, device=values.device)
    if rows:
        there = torch.tensor([size > 0 for size in sizes], device=values.device)
        filled[there] = torch.stack(rows).float()
    return filled, sums
