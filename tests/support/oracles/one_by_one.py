"""Patching and gradients by plain hooks on a transformers model: a forward for every place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tests.support.oracles.reference import ELSEWHERE, WHERE

Metric = Callable[[torch.Tensor], torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]


def module(model: Any, layer: int, site: str) -> torch.nn.Module:
    """The module whose output is a site of a block."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    path, attention, mlp = WHERE.get(base.config.model_type, ELSEWHERE)
    block = base.get_submodule(f"{path}.{layer}")
    return {"residual": lambda: block}.get(
        site, lambda: block.get_submodule({"attention": attention, "mlp": mlp}[site])
    )()


@contextmanager
def changed(model: Any, layer: int, site: str, change: Change) -> Iterator[None]:
    """A site's value is what `change` makes of it (row, column, dim).

    Of `head 3` it is the head's slice of what the output projection reads (Llama's `o_proj`).
    """

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    def before(_module: Any, inputs: Any) -> Any:
        return (_of_a_head(inputs[0], int(site.removeprefix("head ")), width, change),)

    if site.startswith("head "):
        attention: Any = module(model, layer, "attention")
        projection, width = attention.o_proj, attention.head_dim
        handle = projection.register_forward_pre_hook(before)
    else:
        handle = module(model, layer, site).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _of_a_head(carried: torch.Tensor, head: int, width: int, change: Change) -> torch.Tensor:
    parts = list(carried.split(width, -1))
    parts[head] = change(parts[head])
    return torch.cat(parts, -1)


def values(model: Any, ids: Sequence[int], site: str, layer: int) -> torch.Tensor:
    """What a row of ids has at a site: (column, dim)."""
    seen: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        seen.append(value)
        return value

    with torch.no_grad(), changed(model, layer, site, keep):
        model(input_ids=torch.tensor([list(ids)]))
    return seen[0][0].clone()


def patched(
    model: Any,
    ids: Sequence[int],
    source: torch.Tensor,
    site: str,
    layer: int,
    pairs: Sequence[tuple[int, int]],
    metric: Metric,
) -> float:
    """The metric of the last logits when columns get those of the source: (column, its column)."""

    def change(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        for column, there in pairs:
            value[0, column] = source[there]
        return value

    with torch.no_grad(), changed(model, layer, site, change):
        return float(metric(model(input_ids=torch.tensor([list(ids)])).logits[0, -1]))


def slopes(
    model: Any,
    ids: Sequence[int],
    site: str,
    layer: int,
    score: Callable[[Any], torch.Tensor],
    moved: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A site's value and the gradient of `score(output)` there: (column, dim) each.

    With `moved` it is at these values in place of the model's own.
    """
    leaves = []

    def change(value: torch.Tensor) -> torch.Tensor:
        start = value if moved is None else moved[None]
        leaves.append(start.detach().clone().requires_grad_())
        return leaves[0]

    with torch.enable_grad(), changed(model, layer, site, change):
        out = model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True)
        (slope,) = torch.autograd.grad(score(out), leaves[0])
    return leaves[0].detach()[0], slope[0]
