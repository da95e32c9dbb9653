"""The model's own logits: what its forward returns, after whatever it does behind the output head.

A softcap (Gemma 2), a scale (Granite, Cohere, Falcon-H1) or a bias may follow `lm_head`, so its
output is not what the model predicts with; and a scale may come before it (MiniCPM).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.model.record import origin
from tracekit.model.sites import first, with_first

Logits = Float[torch.Tensor, "row column vocabulary"]
# residuals that go through the head at once: 256 × 128,000 logits are 131 MB
AT_ONCE = 256


def read(model: TransformersModel) -> Float[torch.Tensor, "_row _column vocabulary"]:
    """The logits of the forward that is running, inside a trace: read last, nothing runs after.

    Gradients flow through them. Edits of the model act on them.
    """
    # no axes of this call's own: it waits for the forward, in which others name theirs
    return of_output(model.output)


def of_output(output: Any) -> Logits:
    """The logits of what a forward returned."""
    # with return_dict=False in its configuration a model returns a tuple
    return output[0] if isinstance(output, tuple) else output.logits


def of_residuals(
    model: TransformersModel, values: Float[torch.Tensor, "value dim"]
) -> Iterator[Float[torch.Tensor, "value vocabulary"]]:
    """The float32 logits on the CPU that the last block's outputs `values` lead to, in parts.

    A forward of rows of one token, in which `values` take the place of what the last block put
    out: the final norm, the head and what surrounds them are the model's own, wherever its weights
    lie.
    """
    root = origin(model).root
    last = len(root.layers) - 1
    for part in values.split(AT_ONCE):
        ids = torch.zeros(len(part), 1, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad(), root.trace(inputs):
            output = root.layers[last].output
            root.layers[last].output = with_first(output, part[:, None].to(first(output)))
            logits = nnsight.save(read(root)[:, 0])
        yield logits.float().cpu()


def wide(values: torch.Tensor) -> torch.Tensor:
    """The values in float32, or in float64 where they are that.

    >>> wide(torch.zeros(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype == torch.float64 else values.float()


def of_next(logits: Logits, ids: torch.Tensor) -> Float[torch.Tensor, "row following"]:
    """Each id's log-probability but the first's: (row, column, vocabulary) to (row, column − 1)."""
    # one row at a time: a float32 copy of all logits would be the largest tensor of the run
    ids = ids.to(logits.device)
    scores = [
        torch.log_softmax(wide(row[:-1]), -1).gather(1, following[1:, None]).squeeze(1)
        for row, following in zip(logits, ids, strict=True)
    ]
    return torch.stack(scores)


def divergence(
    a: Float[torch.Tensor, "*row vocabulary"], b: Float[torch.Tensor, "*row vocabulary"]
) -> Float[torch.Tensor, "*row"]:
    """KL(a ‖ b) of the predictions that two logits make, in nats: (…, vocabulary) to (…)."""
    a, b = torch.log_softmax(a.float(), -1), torch.log_softmax(b.float(), -1)
    return (a.exp() * (a - b)).sum(-1)
