"""nnsight's TransformersModel, except that it refuses padding unsaid and lets go of what it ran."""

from __future__ import annotations

from typing import Any

import torch
from nnsight import TransformersModel
from nnsight.modeling.processing import as_encoding

from tracekit.release import ReleasingTracer


class GuardedModel(TransformersModel):
    """What `load` returns: a `TransformersModel` whose traces refuse ids padded without a mask.

    transformers would take the padding for text and shift every position, and no number would
    look wrong. A trace or generation frees its tensors when it ends (`ReleasingTracer`).
    """

    def trace(self, *inputs: Any, remote: bool | str = False, **keywords: Any) -> Any:
        """A trace as nnsight's, which frees its tensors when it ends."""
        if not remote:  # a server frees its own
            keywords.setdefault("tracer_cls", ReleasingTracer)
        return super().trace(*inputs, remote=remote, **keywords)

    def _batch(self, invokes: list, fn: Any) -> tuple:
        for inputs, keywords in invokes:
            encoding = as_encoding(inputs[0] if inputs else None, keywords)
            if encoding is not None and encoding.get("attention_mask") is None:
                refuse_padding(encoding.get("input_ids"), self.tokenizer)
        return super()._batch(invokes, fn)

    def _remoteable_class(self) -> type:
        return TransformersModel


def refuse_padding(ids: Any, tokenizer: Any) -> None:
    """Raise `ValueError` for a tensor of ids whose rows are padded unequally."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or len(ids) < 2 or pad is None:
        return
    # how many pad ids each row begins and ends with
    counts = [(side == pad).long().cumprod(1).sum(1) for side in (ids, ids.flip(1))]
    unequal = [
        side for side, n in zip(("left", "right"), counts, strict=True) if len(n.unique()) > 1
    ]
    if unequal:
        found = counts[0 if unequal[0] == "left" else 1].tolist()
        raise ValueError(
            f"A trace was given {len(ids)} rows of ids without an attention mask, and the rows "
            f"have {found} padding ids ({pad}) on the {unequal[0]}: they would be read as text. "
            'Pass {"input_ids": ids, "attention_mask": mask} (tracekit.inputs makes both), or a '
            "mask of ones if these ids are text."
        )
