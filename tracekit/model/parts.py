"""What lies inside a block, by the names that architectures give its parts and projections."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float

# the standard names of what is added to the stream, and the norms that Gemma2/3, OLMo2 (and GLM4)
# put on it before it is added
NAMES = {"attention": "attn", "mlp": "mlp"}
POST_NORMS = {
    "attention": ("post_self_attn_layernorm", "post_attention_layernorm"),
    "mlp": ("post_mlp_layernorm", "post_feedforward_layernorm"),
}
# the modules of a block by what they do, each under the first of these paths that it has
PLACES: Mapping[str, tuple[str, ...]] = {
    "output projection": ("attn.o_proj", "attn.out_proj", "attn.c_proj", "attn.dense"),
    "queries": ("attn.q_proj",),
    "keys": ("attn.k_proj",),
    "values": ("attn.v_proj",),
    "mlp_hidden": (
        *("mlp.down_proj", "mlp.c_proj", "mlp.fc_out", "mlp.dense_4h_to_h"),
        *("mlp.fc2", "mlp.w2", "fc2"),
    ),
    "router": ("mlp.gate", "mlp.router"),
}
# projections to queries, keys and values at once: whether these lie one after the other (all
# heads' queries first), or each head has its three together
FUSED = {
    "attn.qkv_proj": "parts",
    "attn.c_attn": "parts",
    "attn.query_key_value": "heads",
}
PROJECTED = ("queries", "keys", "values")
# what an attention module calls the width of a head, as its output projection takes it
HEAD_WIDTHS = ("v_head_dim", "head_dim", "head_size")
Carried = Float[torch.Tensor, "row column head width"]


def first(value: Any) -> torch.Tensor:
    """The tensor of a module output that may be a tuple (attention also returns its pattern)."""
    return value[0] if isinstance(value, tuple | list) else value


def with_first(value: Any, new: torch.Tensor) -> Any:
    """A module output with another tensor in the place of `first`."""
    return type(value)([new, *value[1:]]) if isinstance(value, tuple | list) else new


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


def place(block: Any, what: str) -> Any:
    """The module of a block (an envoy) that does what `PLACES` names; `None` without one."""
    return next((envoy for path in PLACES[what] if (envoy := _at(block, path)) is not None), None)


def fused(block: Any) -> tuple[Any, str]:
    """The projection to queries, keys and values at once, and its layout; `(None, "")` without."""
    known = ((_at(block, path), layout) for path, layout in FUSED.items())
    return next((one for one in known if one[0] is not None), (None, ""))


def heads_of(block: Any) -> tuple[int, int]:
    """How many heads a block's attention has, and how wide each is in its output projection.

    None, and of no width, where the projection or the width is not known.
    """
    projection, attention = place(block, "output projection"), getattr(block, "attn", None)
    module = getattr(attention, "_module", None)
    widths = [getattr(module, name) for name in HEAD_WIDTHS if hasattr(module, name)]
    if projection is None or not widths or inputs_of(projection) % widths[0]:
        return 0, 0
    count = inputs_of(projection) // widths[0]
    declared = getattr(getattr(module, "config", None), "num_attention_heads", count)
    return (count, widths[0]) if declared == count else (0, 0)


def projected_heads(block: Any, site: str) -> int:
    """How many heads `queries`, `keys` or `values` have; 0 where the projections do not say.

    There are fewer key heads than query heads where queries share them.
    """
    (heads, width), module = heads_of(block), projection(block, site)
    if not heads or module is None:
        return 0
    count, rest = divmod(outputs_of(module), width)
    if place(block, site) is None:
        keys, odd = divmod(count - heads, 2)
        rest += odd + (fused(block)[1] == "heads" and keys != heads)
        count = heads if site == "queries" else keys
    shared = site != "queries" and count > 0 and heads % count == 0
    return count if rest == 0 and (shared or count == heads) else 0


def projection(block: Any, site: str) -> Any:
    """The module that makes `queries`, `keys` or `values`, alone or at once; `None` without one."""
    apart = place(block, site)
    return fused(block)[0] if apart is None else apart


def inputs_of(projection: Any) -> int:
    """How many numbers a linear module takes a token."""
    module = projection._module
    # GPT-2's Conv1D calls them so; peft's layers and bitsandbytes' say in_features
    return int(getattr(module, "in_features", getattr(module, "nx", 0)))


def outputs_of(projection: Any) -> int:
    """How many numbers a linear module gives a token."""
    module = projection._module
    return int(getattr(module, "out_features", getattr(module, "nf", 0)))


def has(block: Any, name: str) -> str:
    """What a block's part has, in words."""
    envoy: Any = getattr(block, name, None)
    if not hasattr(envoy, "_module"):
        children = ", ".join(child for child, _ in block._module.named_children())
        return f"it has no module known as {name!r}; it has {children}"
    children = ", ".join(child for child, _ in envoy._module.named_children())
    return f"its {name} ({type(envoy._module).__name__}) has {children or 'no modules'}"


def sizes(block: Any, site: str, hidden: int) -> tuple[int, ...]:
    """How long the axes of a site are; without that of keys, and for a router at most.

    `hidden` is the width of the residual stream.
    """
    heads, width = heads_of(block)
    if site == "heads":
        return heads, hidden
    if site in PROJECTED:
        return projected_heads(block, site), width
    if site == "pattern":
        return (max(heads, 1),)
    return (inputs_of(place(block, site)),) if site == "mlp_hidden" else (hidden,)


def read(block: Any, site: str) -> torch.Tensor:
    """The value of a site inside a part, in a trace: (row, column, …), the heads apart."""
    return READERS[site](block)


def carried(block: Any) -> Carried:
    """What each head hands to the output projection, in a trace: its slice of the input."""
    count, width = heads_of(block)
    return place(block, "output projection").input.unflatten(-1, (count, width))


def carry(block: Any, value: Carried) -> None:
    """Put what each head hands to the output projection in the place of the model's, in a trace."""
    place(block, "output projection").input = value.flatten(-2)


def _at(block: Any, path: str) -> Any:
    for name in path.split("."):
        block = getattr(block, name, None)
    return block if hasattr(block, "_module") else None


def _projected(block: Any, site: str) -> torch.Tensor:
    heads, width = heads_of(block)
    apart = place(block, site)
    if apart is not None:
        return apart.output.unflatten(-1, (-1, width))
    whole, layout = fused(block)
    number = PROJECTED.index(site)
    if layout == "heads":
        return whole.output.unflatten(-1, (-1, len(PROJECTED), width)).select(-2, number)
    keys = projected_heads(block, "keys")
    return whole.output.unflatten(-1, (-1, width)).split([heads, keys, keys], -2)[number]


def _pattern(block: Any) -> torch.Tensor:
    # by query first, as every site: (row, query, head, key), −1 where the model masks
    mask = block.attn.inputs[1].get("attention_mask")
    weights = block.attn.output[1]
    return weights.masked_fill(~_seen(mask, weights), -1.0).transpose(1, 2)


def _seen(mask: torch.Tensor | None, weights: torch.Tensor) -> torch.Tensor:
    if mask is None:
        return torch.ones_like(weights, dtype=torch.bool).tril()
    mask = mask[..., : weights.shape[-1]]
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _router(block: Any) -> torch.Tensor:
    rows = block.mlp.input.shape[:2]
    # its tokens are in one row
    return first(place(block, "router").output).flatten(0, -2).unflatten(0, rows)


READERS: Mapping[str, Callable[[Any], torch.Tensor]] = {
    **{site: functools.partial(_projected, site=site) for site in PROJECTED},
    "pattern": _pattern,
    "mlp_hidden": lambda block: place(block, "mlp_hidden").input,
    "router": _router,
}
