"""Where in a block a value is read: the residual stream, or what attention and MLP add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.origin import origin

Site = str | Callable[[Any], Any]
SITES = ("residual", "attention", "mlp")
# the norms that Gemma2/3, OLMo2 (and GLM4) put on what a part adds, before it is added
POST_NORMS = {
    "attention": ("post_self_attn_layernorm", "post_attention_layernorm"),
    "mlp": ("post_mlp_layernorm", "post_feedforward_layernorm"),
}


def first(value: Any) -> torch.Tensor:
    """The tensor of a module output that may be a tuple (attention also returns its pattern)."""
    return value[0] if isinstance(value, tuple) else value


def read(model: TransformersModel, layer: int, site: Site) -> torch.Tensor:
    """The value at a site of block `layer`, inside a trace; -1 is the embedding output.

    `attention` and `mlp` are what each adds to the residual stream: after the post-norm on
    architectures that have one (Gemma2/3, OLMo2), so that on sequential blocks
    input + attention + mlp = output, and on parallel ones (GPT-J, NeoX) likewise.
    """
    if layer == -1:
        return first(model.layers[0].input)
    block = model.layers[layer]
    if callable(site):
        return site(block)
    if site == "residual":
        return first(block.output)
    return _contribution(block, site)


def _contribution(block: Any, site: str) -> torch.Tensor:
    for name in POST_NORMS[site]:
        if hasattr(block, name) and _post_normed(block):
            return first(getattr(block, name).output)
    return first((block.attn if site == "attention" else block.mlp).output)


def _post_normed(block: Any) -> bool:
    # Llama has a `post_attention_layernorm` too, which norms the mlp's input
    marks = ("post_feedforward_layernorm", "post_mlp_layernorm")
    return any(hasattr(block, mark) for mark in marks)


def check_layers(model: TransformersModel, layers: Sequence[int], site: Site) -> list[int]:
    """The layers asked for, ascending.

    Errors: `ValueError` for none, for one out of range, for one named twice, for an unknown site
    or one that -1 (the embedding output) does not have.
    """
    depth, wanted = len(model.layers), [int(layer) for layer in layers]
    wrong = [layer for layer in wanted if not -1 <= layer < depth]
    if wrong or not wanted:
        raise ValueError(
            f"Layers {wrong or 'none'} were asked for; this model has blocks 0 to {depth - 1}, "
            "and -1 is the embedding output. Count from 0."
        )
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"Layers {wanted} name a layer twice; name each once.")
    if not callable(site) and site not in SITES:
        raise ValueError(
            f"site={site!r} was asked for; there are {', '.join(SITES)}, or a function of the "
            "block such as lambda block: block.attn.q_proj.output."
        )
    if -1 in wanted and site != "residual":
        raise ValueError("Layer -1 is the embedding output, which only site='residual' has.")
    if isinstance(site, str) and site != "residual":
        _refuse_lacking(model, wanted, site)
    return sorted(wanted)


def _refuse_lacking(model: TransformersModel, layers: Sequence[int], site: str) -> None:
    refused = unsummed(model) or origin(model).refused.get(site)
    if refused is not None:
        raise ValueError(f"site={site!r} was asked for, but {refused} Use site='residual'.")
    name = {"attention": "attn"}.get(site, site)
    for layer in layers:
        block = model.layers[layer]
        if not hasattr(block, name):
            parts = ", ".join(child for child, _ in block._module.named_children())
            raise ValueError(
                f"site={site!r} was asked for, but layers[{layer}] of {origin(model).name} has no "
                f"module known as {name!r}; it has {parts}. Pass rename= to load, or a function "
                "of the block, or use site='residual'."
            )


def unsummed(model: TransformersModel) -> str | None:
    """Why this architecture's blocks are not input + attention + mlp; `None` where they are."""
    config = model._module.config
    if config.model_type == "opt" and not config.do_layer_norm_before:
        return "this OPT norms the residual stream itself after each addition."
    return None
