"""Attention's patterns from a batch's columns to the labels of tokens, holes where it masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool

from tracekit.transcripts.padded import Batch


def key_columns(kept: Bool[np.ndarray, "prompt token"]) -> np.ndarray:
    """The token columns that are keys: every one up to the last query that is kept."""
    return np.arange(int(np.flatnonzero(kept.any(0))[-1]) + 1)


def by_key(
    saved: Sequence[tuple[torch.Tensor, torch.Tensor]],
    transcripts: xr.Dataset,
    kept: Bool[np.ndarray, "prompt token"],
    made: Batch,
    keys: np.ndarray,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each layer's (kept, head, column of the batch) as (kept, head, key), NaN where it masks.

    What is masked is negative in `saved`. `transcripts` and `kept` are those of the batch's rows.
    """
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    columns = np.full(real.shape, -1)
    # real tokens keep their order in the batch
    columns[real] = made.attention_mask.nonzero()[:, 1].numpy()
    of_keys = torch.as_tensor(columns[np.nonzero(kept)[0]][:, keys])
    return [(_placed(values, of_keys.to(values.device)), sums) for values, sums in saved]


def _placed(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    index = columns.clamp(min=0)[:, None].expand(-1, values.shape[1], -1)
    hidden = (columns < 0)[:, None] | (values.gather(2, index) < 0)
    return values.gather(2, index).masked_fill(hidden, torch.nan)
