"""A padded batch of token ids, as a model takes it: no labelled arrays are needed to hold one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int


@dataclass(frozen=True)
class Batch:
    """Left-padded model inputs, and where each token label lies in them.

    `starts[row]` is the column of label 0 (the first response token); a column's label is
    column − start.
    """

    input_ids: Int[torch.Tensor, "row column"]
    attention_mask: Int[torch.Tensor, "row column"]
    starts: Int[torch.Tensor, row]
    prompts: tuple[str, ...]

    @property
    def model_inputs(self) -> dict[str, torch.Tensor]:
        """What nnsight takes; it derives the position ids from the mask."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
