"""What every check runs on: a few short rows of ids that any vocabulary has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nnsight import TransformersModel

from tracekit.transcripts.padded import Batch

LENGTHS = (7, 4)


def probe(model: TransformersModel, lengths: Sequence[int] = LENGTHS) -> Batch:
    """Rows of these lengths, left-padded: two of unequal length by default."""
    vocabulary = model._module.config.get_text_config().vocab_size
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = (torch.arange(length) * 37 + 11 * row + 5) % vocabulary
        mask[row, width - length :] = 1
    starts = torch.full((len(lengths),), width)
    return Batch(ids, mask, starts, tuple(f"probe/{n}" for n in range(len(lengths))))
