"""Where in a block a value is read: the residual stream, or what attention and MLP add to it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.checks import proof
from tracekit.model.checks.probe import probe
from tracekit.model.record import origin
from tracekit.transcripts.padded import Batch

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


def check_layers(model: TransformersModel, layers: Sequence[int] | None, site: Site) -> list[int]:
    """The layers asked for, ascending; every block's for `None`.

    Errors: `ValueError` for none, for one out of range, for one named twice, for an unknown site
    or one that -1 (the embedding output) does not have, and for `attention` or `mlp` where a
    block does not add it as it is. Where nothing was proved (`check=False`), the proof runs now.
    """
    depth = len(model.layers)
    wanted = [int(layer) for layer in (range(depth) if layers is None else layers)]
    wrong = [layer for layer in wanted if not -1 <= layer < depth]
    if wrong or not wanted:
        raise InputError(
            f"Layers {wrong or 'none'} were asked for; this model has blocks 0 to {depth - 1}, "
            "and -1 is the embedding output. Count from 0."
        )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"Layers {wanted} name a layer twice; name each once.")
    if not callable(site) and site not in SITES:
        raise InputError(
            f"site={site!r} was asked for; there are {', '.join(SITES)}, or a function of the "
            "block such as lambda block: block.attn.q_proj.output."
        )
    if -1 in wanted and site != "residual":
        raise InputError("Layer -1 is the embedding output, which only site='residual' has.")
    if isinstance(site, str) and site != "residual":
        _refuse_unproved(model, wanted, site)
    return sorted(wanted)


def watched(model: TransformersModel, tracer: Any) -> Any:
    """Inside a trace, before anything is read: the calls of each block and of its modules."""
    paths = [path for block in model.layers for path in (block.path, *_inside(block))]
    # in another type than the model's they are copies: a block may add in place
    return tracer.cache(modules=paths, include_inputs=True, dtype=torch.float64)


def prove(
    model: TransformersModel, calls: Any, outputs: Sequence[torch.Tensor], batch: Batch
) -> None:
    """Proves `attention` and `mlp`, each by itself, by a forward of `batch` that was watched.

    `outputs` are the blocks' own, in the type that the stream is held in.
    """
    ran = [
        proof.Ran(
            calls=_calls(calls, block.path, ""),
            modules={path: _calls(calls, path, name) for path, name in _inside(block).items()},
            parts=_parts(block),
            dtype=output.dtype,
        )
        for block, output in zip(model.layers, outputs, strict=True)
    ]
    refused = proof.unproved(ran, batch.attention_mask.bool())
    for layer, block in enumerate(model.layers):
        for site in NAMES.keys() - _parts(block).keys():
            children = ", ".join(name for name, _ in block._module.named_children())
            refused.setdefault(site, {})[layer] = (
                f"it has no module known as {NAMES[site]!r}; it has {children}. Pass rename= to "
                "load, or a function of the block."
            )
    origin(model).unproved = refused


def _parts(block: Any) -> dict[str, str]:
    envoys = {site: part(block, site) for site in NAMES}
    return {site: envoy.path for site, envoy in envoys.items() if hasattr(envoy, "_module")}


def _inside(block: Any) -> dict[str, str]:
    """The modules of a block by path, each with its name there."""
    children = {f"{block.path}.{name}": name for name, _ in block._module.named_children()}
    return {**dict.fromkeys(_parts(block).values(), ""), **children}


def _calls(cache: Any, path: str, name: str) -> list[proof.Call]:
    if path not in cache:
        return []
    seen = cache[path]
    given, output = (seen.input, seen.output) if len(seen) > 1 else ([seen.input], [seen.output])
    return [proof.Call(name, *call) for call in zip(given, output, strict=True)]


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
        batch, root = probe(model), about.root
        with torch.no_grad(), root.trace(batch.model_inputs) as tracer:
            calls = watched(root, tracer)
            outputs = nnsight.save([first(block.output) for block in root.layers])
            tracer.stop()
        prove(root, calls, outputs, batch)
    assert about.unproved is not None
    reasons = about.unproved.get(site, {})
    refused = [layer for layer in layers if layer in reasons]
    if refused:
        right = [n for n in range(len(model.layers)) if n not in reasons]
        instead = f", or layers among {right}" if right else ""
        raise InputError(
            f"site={site!r} was asked for, but at layers[{refused[-1]}] of {about.name} "
            f"{reasons[refused[-1]]} Use site='residual'{instead}."
        )
