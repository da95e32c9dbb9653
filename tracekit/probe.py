"""What every check runs on: two short rows of ids that any vocabulary has."""

from __future__ import annotations

import torch
from nnsight import TransformersModel

from tracekit.tensors import Batch

LENGTHS = (7, 4)


def probe(model: TransformersModel) -> Batch:
    """Two rows of unequal length, left-padded."""
    vocabulary = model._module.config.get_text_config().vocab_size
    width = max(LENGTHS)
    ids = torch.zeros(len(LENGTHS), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, width - length :] = (torch.arange(length) * 37 + 11 * row + 5) % vocabulary
        mask[row, width - length :] = 1
    starts = torch.full((len(LENGTHS),), width)
    return Batch(ids, mask, starts, tuple(f"probe/{n}" for n in range(len(LENGTHS))))
