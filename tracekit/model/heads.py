"""What each attention head adds to the residual stream: its part of the output projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.parts import NAMES, heads_of, part, place

# a power of two, beside which no bias takes digits from the weights in 16 bits
LARGE = 1024.0


def require_heads(model: TransformersModel, layer: int, heads: Sequence[int]) -> list[int]:
    """The heads of a block that were asked for, ascending.

    Errors: `ValueError` for none, for one that the block does not have or that is named twice.
    """
    count, _ = heads_of(model.layers[layer])
    wanted = sorted(int(head) for head in heads)
    wrong = [head for head in wanted if not 0 <= head < count]
    if wrong or not wanted or len({*wanted}) < len(wanted):
        raise InputError(
            f"Heads {list(heads) or 'none'} of layers[{layer}] were asked for; it has heads 0 to "
            f"{count - 1}. Name each once, from 0."
        )
    return wanted


def contributions(
    block: Any, heads: Float[torch.Tensor, "token head width"]
) -> Float[torch.Tensor, "token head dim"]:
    """What each head adds to the residual stream, of what each hands to the output projection.

    Their sum and the projection's bias are what attention adds. The projection itself says what
    its weights are, so that a quantised one and one with an adapter are right too. Where a norm
    follows (Gemma2/3, OLMo2), each contribution goes through it at the scale of the whole.
    """
    projection, norm = place(block, "output projection"), part(block, "attention")
    weights, bias = _weights(projection, heads)
    added = torch.einsum("thw,hwd->thd", heads, weights)
    return added if norm is getattr(block, NAMES["attention"]) else _normed(norm, added, bias)


def _weights(projection: Any, heads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights (head, width, dim) and the bias (dim) of a linear module, as it acts."""
    count, width = heads.shape[1:]
    units = LARGE * torch.eye(count * width, dtype=heads.dtype, device=heads.device)
    bias = projection(torch.zeros_like(units[:1]))
    return ((projection(units) - bias) / LARGE).unflatten(0, (count, width)), bias[0]


def _normed(norm: Any, added: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Contributions through a norm that is linear but for the size of their sum."""
    total = added.sum(1) + bias
    gain = norm(torch.full_like(bias, LARGE))
    alone, whole = (gain * total).float(), norm(total).float()
    scale = (whole * alone).sum(-1) / alone.square().sum(-1).clamp(min=1e-30)
    return added * gain * scale[:, None, None].to(added.dtype)
