"""A step of generation whose attention is two plain products: on a CPU, much the faster form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from nnsight import TransformersModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from tracekit.model.attention import computed_by

FUSED, ONE_QUERY = "sdpa", "tracekit_one_query"
# what the plain form below knows nothing of
STRANGE = ("cache", "position_bias", "s_aux", "softcap")


@contextlib.contextmanager
def one_query(model: TransformersModel, wanted: bool = True) -> Iterator[None]:
    """Inside, a forward of one token a row attends by two plain products, and as before afterwards.

    That is a step of generation. torch's fused kernel on a CPU goes through every head's keys by
    themselves: at 80 rows of 100 tokens it takes longer than all other products of a block. A
    forward of several tokens is left to it. Changes nothing where the model attends otherwise.

    >>> with one_query(model):
    ...     model._module.config._attn_implementation
    'tracekit_one_query'
    """
    with computed_by(ONE_QUERY, model, wanted and fused(model)):
        yield


def fused(model: TransformersModel) -> bool:
    """Whether the model attends by torch's fused kernel."""
    return getattr(model._module.config, "_attn_implementation", None) == FUSED


def _attend(
    module: torch.nn.Module,
    query: Float[torch.Tensor, "row head query dim"],
    key: Float[torch.Tensor, "row kept key dim"],
    value: Float[torch.Tensor, "row kept key width"],
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[Float[torch.Tensor, "row query head width"], None]:
    """Attention in the form of transformers' interface; its own for all but one plain query."""
    mask = attention_mask
    plain = query.shape[2] == 1 and query.dtype in (torch.float32, torch.bfloat16)
    strange = options.get("dropout") or any(options.get(k) is not None for k in STRANGE)
    known = mask is None or (mask.dtype == torch.bool and mask.shape[1] == 1)
    if not plain or strange or not known:
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    rows, heads, _, dim = query.shape
    scale = options.get("scaling")
    # the heads that share keys and values, side by side
    grouped = query.reshape(rows, key.shape[1], -1, dim)
    scores = (grouped @ key.mT).float() * (dim**-0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    read = scores.softmax(-1).to(value.dtype) @ value
    return read.reshape(rows, 1, heads, -1), None


AttentionInterface.register(ONE_QUERY, _attend)
AttentionMaskInterface.register(ONE_QUERY, sdpa_mask)
