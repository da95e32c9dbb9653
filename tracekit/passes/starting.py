"""Forwards that begin at a block: what lies below it is known, and need not be computed again."""

from __future__ import annotations

from dataclasses import dataclass

import nnsight
import torch
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.edits.edit import edited_depth
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import head, parts, sites
from tracekit.model.record import origin
from tracekit.transcripts.padded import Batch

# parts of the logits' norm by which a forward that began at a block may differ
SAME = {torch.float32: 1e-4}
SAME_ROUNDED = 0.02
Residual = Float[torch.Tensor, "row column dim"]


@dataclass(frozen=True)
class Start:
    """A batch, and the residuals that rows of it begin from: (block, row, column, dim)."""

    made: Batch
    residuals: list[Residual]
    skips: bool


def require_local(model: TransformersModel, what: str) -> None:
    """Errors: `ValueError` for a remote model."""
    if origin(model).remote:
        raise InputError(
            f"{what} was asked of the remote model {origin(model).name}, but writes into many "
            "forwards of its own. Load the model here (remote=False)."
        )


def value(model: TransformersModel, layer: int, site: str) -> torch.Tensor:
    """Inside a trace: a site of a block, or of `head 3` alone what it hands to the projection."""
    if site == "heads":
        return parts.carried(model.layers[layer])
    if (head := head_of(site)) is not None:
        return parts.carried(model.layers[layer])[:, :, head]
    return sites.read(model, layer, site)


def head_of(site: str) -> int | None:
    """The head that a site is of; `None` for the others.

    >>> head_of("head 3")
    3
    """
    word, _, number = site.partition(" ")
    return int(number) if word == "head" and number.isdigit() else None


def put(model: TransformersModel, layer: int, site: str, new: torch.Tensor) -> None:
    """Inside a trace: `new` takes the place of `value`; layer −1 is the embedding."""
    if (head := head_of(site)) is not None:
        whole = parts.carried(model.layers[layer]).clone()
        whole[:, :, head] = new
        new, site = whole, "heads"
    sites.write(model, layer, site, new)


def begin(model: TransformersModel, layer: int, residual: Residual, skips: bool) -> None:
    """Inside a trace: `residual` is what block `layer` puts out; what lies below is left out.

    Without `skips` the blocks below run, and their result is replaced.
    """
    if layer == -1 or not skips:
        put(model, layer, "residual", residual)
        return
    for block in list(model.layers)[: layer + 1]:
        block.skip(residual)


def skips(
    model: TransformersModel, made: Batch, residuals: list[Residual], logits: torch.Tensor
) -> bool:
    """Whether a forward of `made` that begins at the last of `residuals` gives the same `logits`.

    It does where a block's output is all that later blocks read, as in most architectures; with
    edits of the model the blocks run, since edits act on what they put out.
    """
    if edited_depth(model) >= 0 or not residuals:
        return False
    last = residuals[-1]
    try:
        with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, use_cache=False):
            begin(model, len(residuals) - 1, last, True)
            again = nnsight.save(head.read(model)[:, -1])
    except Exception:
        # a block that misses what another one would have left for it
        return False
    error = (again.float() - logits.float()).norm() / logits.float().norm()
    return bool(error <= SAME.get(last.dtype, SAME_ROUNDED))
