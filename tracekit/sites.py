"""Where in a block a value is read: the residual stream, or what attention and MLP add to it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit import proof
from tracekit.origin import origin
from tracekit.probe import probe
from tracekit.tensors import Batch

Site = str | Callable[[Any], Any]
SITES = ("residual", "attention", "mlp")
NAMES = {"attention": "attn", "mlp": "mlp"}
# the norms that Gemma2/3, OLMo2 (and GLM4) put on what a part adds, before it is added
POST_NORMS = {
    "attention": ("post_self_attn_layernorm", "post_attention_layernorm"),
    "mlp": ("post_mlp_layernorm", "post_feedforward_layernorm"),
}


def first(value: Any) -> torch.Tensor:
    """The tensor of a module output that may be a tuple (attention also returns its pattern)."""
    return value[0] if isinstance(value, tuple | list) else value


def with_first(value: Any, new: torch.Tensor) -> Any:
    """A module output with another tensor in the place of `first`."""
    return type(value)([new, *value[1:]]) if isinstance(value, tuple | list) else new


def read(model: TransformersModel, layer: int, site: Site) -> torch.Tensor:
    """The value at a site of block `layer`, inside a trace; -1 is the embedding output.

    `attention` and `mlp` are what each adds to the residual stream: after the post-norm on
    architectures that have one (Gemma2/3, OLMo2). `check_layers` refuses the blocks that do not
    add them as they are.
    """
    if layer == -1:
        return first(model.layers[0].input)
    block = model.layers[layer]
    if callable(site):
        return site(block)
    return first(block.output if site == "residual" else part(block, site).output)


def part(block: Any, site: str) -> Any:
    """The module of a block (an envoy) that stands for `attention` or `mlp`; `None` without one."""
    for name in POST_NORMS[site]:
        if hasattr(block, name) and _post_normed(block):
            return getattr(block, name)
    return getattr(block, NAMES[site], None)


def _post_normed(block: Any) -> bool:
    # Llama has a `post_attention_layernorm` too, which norms the mlp's input
    marks = ("post_feedforward_layernorm", "post_mlp_layernorm")
    return any(hasattr(block, mark) for mark in marks)


def check_layers(model: TransformersModel, layers: Sequence[int], site: Site) -> list[int]:
    """The layers asked for, ascending.

    Errors: `ValueError` for none, for one out of range, for one named twice, for an unknown site
    or one that -1 (the embedding output) does not have, and for `attention` or `mlp` where a
    block does not add it as it is. Where nothing was proved at load, the proof runs now.
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
        _refuse_unproved(model, wanted, site)
    return sorted(wanted)


@contextlib.contextmanager
def proving(model: TransformersModel, batch: Batch) -> Iterator[None]:
    """Proves `attention` and `mlp`, each by itself, by a forward of `batch` that runs inside."""
    about = origin(model)
    parts = [{site: part(block, site) for site in NAMES} for block in model.layers]
    modules = [
        {site: envoy._module for site, envoy in named.items() if hasattr(envoy, "_module")}
        for named in parts
    ]
    blocks = [block._module for block in model.layers]
    with proof.watching(blocks, modules, batch.attention_mask.bool()) as refused:
        yield
    for layer, (block, named) in enumerate(zip(blocks, modules, strict=True)):
        for site in NAMES.keys() - named.keys():
            children = ", ".join(name for name, _ in block.named_children())
            refused.setdefault(site, {})[layer] = (
                f"it has no module known as {NAMES[site]!r}; it has {children}. Pass rename= to "
                "load, or a function of the block."
            )
    about.unproved = refused


def _refuse_unproved(model: TransformersModel, layers: Sequence[int], site: str) -> None:
    about = origin(model)
    if about.remote is True:
        warnings.warn(
            f"site={site!r} of {about.name} is read unproved: its weights are on the server. "
            "Load the model here once, or use site='residual'.",
            stacklevel=4,
        )
        return
    if about.unproved is None:
        batch = probe(model)
        trace = about.root.trace(batch.model_inputs)
        with proving(about.root, batch), torch.no_grad(), trace:
            nnsight.save(first(about.root.layers[-1].output))
    assert about.unproved is not None
    reasons = about.unproved.get(site, {})
    refused = [layer for layer in layers if layer in reasons]
    if refused:
        right = [n for n in range(len(model.layers)) if n not in reasons]
        instead = f", or layers among {right}" if right else ""
        raise ValueError(
            f"site={site!r} was asked for, but at layers[{refused[-1]}] of {about.name} "
            f"{reasons[refused[-1]]} Use site='residual'{instead}."
        )
