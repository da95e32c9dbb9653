"""What plain transformers computes inside attention and MLP, read with hooks; no tracekit.

Adapters are merged into the weights first, so that every projection is a plain matrix.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tests.support.oracles import reference

# model_type → in a block: the output projection, the down projection
PROJECTIONS: Mapping[str, tuple[str, str]] = {
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gptj": ("attn.out_proj", "mlp.fc_out"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
}
ELSEWHERE = ("self_attn.o_proj", "mlp.down_proj")
FUSED = ("gpt2", "gpt_neox", "phi3")
HEADS, WIDTH = 4, 8


def merged(model: Any) -> Any:
    """The model with its adapter, if any, in its weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def read(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[tuple[str, int], torch.Tensor]:
    """(site, layer) → (row, column, …), padding included; patterns are (row, query, head, key)."""
    kind = model.config.model_type
    model.set_attn_implementation("eager")
    blocks = model.get_submodule(reference.WHERE.get(kind, reference.ELSEWHERE)[0])
    seen: dict[tuple[str, int], torch.Tensor] = {}
    handles = []
    for layer, block in enumerate(blocks):
        handles += _hooks(block, kind, layer, seen)
    with _spying(model, seen), torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    rows = inputs["input_ids"].shape
    return {place: _by_token(value, place[0], rows) for place, value in seen.items()}


def _by_token(value: torch.Tensor, site: str, rows: torch.Size) -> torch.Tensor:
    if site in ("queries", "keys", "values"):
        return value.unflatten(-1, (-1, WIDTH)) if value.ndim == 3 else value.transpose(1, 2)
    if site == "pattern":
        return value.transpose(1, 2)
    return value.reshape(*rows, *value.shape[-1 - (site == "heads") :])


def _hooks(block: Any, kind: str, layer: int, seen: dict[tuple[str, int], torch.Tensor]) -> Any:
    output, down = PROJECTIONS.get(kind, ELSEWHERE)
    attention = output.rpartition(".")[0]

    def pattern(_module: Any, _args: Any, result: Any) -> None:
        seen["pattern", layer] = result[1]

    def heads(module: Any, args: Any, result: Any) -> None:
        seen["heads", layer] = contributions(block, module, args[0], result)

    yield block.get_submodule(attention).register_forward_hook(pattern)
    yield block.get_submodule(output).register_forward_hook(heads)
    for site, letter in (("queries", "q"), ("keys", "k"), ("values", "v")):
        if kind not in FUSED:
            module = block.get_submodule(f"{attention}.{letter}_proj")
            yield module.register_forward_hook(_noting(seen, site, layer, "output"))
    if hasattr(block, "mlp") and hasattr(block.mlp, "gate"):
        yield block.mlp.gate.register_forward_hook(_noting(seen, "router", layer, "logits"))
    else:
        module = block.get_submodule(down)
        yield module.register_forward_hook(_noting(seen, "mlp_hidden", layer, "input"))


def _noting(seen: dict[tuple[str, int], torch.Tensor], site: str, layer: int, what: str) -> Any:
    def hook(module: Any, args: Any, result: Any) -> None:
        logits = args[0] @ module.weight.T if what == "logits" else None
        seen[site, layer] = {"output": result, "input": args[0], "logits": logits}[what]

    return hook


def contributions(block: Any, projection: Any, given: torch.Tensor, output: Any) -> torch.Tensor:
    """Each head's slice times its block of the weight, through the norm that may follow."""
    weight = projection.weight
    weight = weight if type(projection).__name__ == "Conv1D" else weight.T
    slices = zip(given.split(WIDTH, -1), weight.split(WIDTH, 0), strict=True)
    added = torch.stack([part @ matrix for part, matrix in slices], -2)
    if not hasattr(block, "post_feedforward_layernorm"):
        return added
    norm = block.post_attention_layernorm
    gain = 1 + norm.weight if "Gemma" in type(norm).__name__ else norm.weight
    size = output.square().mean(-1, keepdim=True) + getattr(norm, "eps", 0)
    size = size + getattr(norm, "variance_epsilon", 0)
    return added * gain * size.rsqrt()[..., None]


@contextlib.contextmanager
def _spying(model: Any, seen: dict[tuple[str, int], torch.Tensor]) -> Iterator[None]:
    """Where one projection makes all three, they are noted as attention takes them."""
    module = importlib.import_module(type(model).__module__)
    if model.config.model_type not in FUSED:
        yield
        return
    plain = module.eager_attention_forward

    def spy(attention: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        for site, values in (("queries", query), ("keys", key), ("values", value)):
            seen[site, attention.layer_idx] = values
        return plain(attention, query, key, value, *args, **kwargs)

    module.eager_attention_forward = spy
    try:
        yield
    finally:
        module.eager_attention_forward = plain
