"""Where in a block a value is read: the residual stream, or what attention and MLP add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from nnsight import TransformersModel

Site = str | Callable[[Any], Any]
SITES = ("residual", "attention", "mlp")


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
    inner, post = (
        (block.attn, "post_attention_layernorm")
        if site == "attention"
        else (block.mlp, "post_feedforward_layernorm")
    )
    normed = post_normed(block) and hasattr(block, post)
    return first(getattr(block, post).output if normed else inner.output)


def post_normed(block: Any) -> bool:
    """Whether the block norms what it adds (its `post_attention_layernorm` comes after attn)."""
    return hasattr(block, "post_feedforward_layernorm")


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
    if site in ("attention", "mlp"):
        _refuse_normed_stream(model, site)
    return sorted(wanted)


def _refuse_normed_stream(model: TransformersModel, site: Site) -> None:
    config = model._module.config
    if config.model_type == "opt" and not config.do_layer_norm_before:
        raise ValueError(
            f"site={site!r} was asked for, but this OPT norms the residual stream itself after "
            "each addition, so nothing is added to it as it is. Use site='residual'."
        )


def site_name(site: Site) -> str:
    """The site as provenance names it; a function goes by its name and its code."""
    if not callable(site):
        return site
    import hashlib

    code = site.__code__ if hasattr(site, "__code__") else None
    text = repr((code.co_code, code.co_names, code.co_consts)) if code else repr(site)
    return (
        f"{getattr(site, '__name__', 'function')}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )
