"""The standard names, on architectures known by name and on others by their structure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from nnsight import TransformersModel
from nnsight.intervention.envoy import Envoy
from transformers import PreTrainedModel

from tracekit.errors import InputError

# Module paths of known architectures → the standard names. A path that a model lacks is skipped.
STANDARD_NAMES: Mapping[str, str] = {
    "model.layers": "layers",
    "model.language_model.layers": "layers",
    "model.decoder.layers": "layers",
    "transformer.h": "layers",
    "gpt_neox.layers": "layers",
    "self_attn": "attn",
    "attention": "attn",
    "feed_forward": "mlp",
    "block_sparse_moe": "mlp",
    "fc2": "mlp",  # OPT has no mlp module: fc2's output is what its mlp adds
    "model.embed_tokens": "embed",
    "model.language_model.embed_tokens": "embed",
    "model.decoder.embed_tokens": "embed",
    "transformer.wte": "embed",
    "gpt_neox.embed_in": "embed",
    "model.norm": "norm",
    "model.language_model.norm": "norm",
    "model.decoder.final_layer_norm": "norm",
    "transformer.ln_f": "norm",
    "gpt_neox.final_layer_norm": "norm",
    "embed_out": "lm_head",
}
_MEANING = {"layers": "the blocks", "embed": "the token embedding", "lm_head": "the output head"}
WHOLE = ("layers", "embed", "norm", "lm_head")
_ATTENTION = ("attn", "attention")
_OTHER = ("vision", "visual", "image", "audio", "speech")
_MLP = ("mlp", "ffn", "feed_forward", "feedforward")


def missing(model: TransformersModel) -> list[str]:
    """The standard names of the whole model that it does not have.

    A model without a final norm is one without `norm`; the others it must have.
    """
    return [name for name in WHOLE if not hasattr(model, name)]


def by_structure(
    module: PreTrainedModel, rename: Mapping[Any, Any] = STANDARD_NAMES
) -> dict[str, str]:
    """A `rename` mapping read off the structure of an architecture that is not known by name.

    `layers` is what `rename` calls so, else the one ModuleList as long as `num_hidden_layers`;
    `embed` and `lm_head` are what transformers calls the input and output embeddings; `norm` is the
    last norm beside the blocks. A name that the structure does not settle is left out.
    """
    named = [path for path, name in rename.items() if name == "layers"]
    lists = [found for found in _lists(module) if found[0] in named] or block_lists(module)
    if len(lists) != 1:
        return {}
    (path, blocks), paths = lists[0], {lists[0][0]: "layers"}
    parent = path.rpartition(".")[0]
    beside = module.get_submodule(parent).named_children()
    # a norm of the embedding may stand there too (BART)
    norms = [
        f"{parent}.{name}"
        for name, child in beside
        if "norm" in type(child).__name__.lower() and "emb" not in name.lower()
    ]
    paths |= {norm.removeprefix("."): "norm" for norm in norms[-1:]}
    for name, part in (
        ("embed", module.get_input_embeddings()),
        ("lm_head", module.get_output_embeddings()),
    ):
        if not hasattr(module, name):  # a head of several modules (RoBERTa) has the name already
            paths |= {path: name for path, inner in module.named_modules() if inner is part}
    for name, words in (("attn", _ATTENTION), ("mlp", _MLP)):
        inside = [n for n, c in blocks[0].named_children() if _is_part(n, c, words)]
        paths |= {inside[0]: name} if len(inside) == 1 and inside[0] != name else {}
    return {_spelt(path): name for path, name in paths.items() if path != name}


def _spelt(path: str) -> str:
    # nnsight serves `.output` on every module, and moves a child of that name to `E_output`
    taken = [inspect.isdatadescriptor(getattr(Envoy, part, None)) for part in path.split(".")]
    parts = zip(path.split("."), taken, strict=True)
    return ".".join(f"{Envoy.OVERLOAD_PREFIX}{part}" if moved else part for part, moved in parts)


def block_lists(module: PreTrainedModel) -> list[tuple[str, torch.nn.ModuleList]]:
    """The module lists as long as the model is deep, but for those of an encoder beside it."""
    depth = getattr(module.config.get_text_config(), "num_hidden_layers", 0)
    return [
        (path, child)
        for path, child in _lists(module)
        if len(child) == depth and not any(word in path.lower() for word in _OTHER)
    ]


def require(model: TransformersModel, name: str, rename: Iterable[Any] = ()) -> None:
    """Raise `ValueError` naming what the model lacks, what it has, and the mapping to pass.

    Paths of `rename` at which the model has nothing are named too: nnsight passes over them.
    """
    lacks = [name for name in missing(model) if name != "norm"]
    if not lacks:
        return
    module = model._module
    lists = [f"{path} ({len(child)})" for path, child in _lists(module)]
    raise InputError(
        f"{name}: {type(module).__name__} has no module known as {', '.join(lacks)}, and its "
        f"structure does not settle which it is. Its children are "
        f"{', '.join(n for n, _ in module.named_children())}; its module lists are "
        f"{', '.join(lists[:5]) or 'none'}. {_strays(module, rename)}"
        f"Pass the mapping, module path to name: load(…, rename={{{_asked(lacks)}}})."
    )


def _lists(module: torch.nn.Module) -> list[tuple[str, torch.nn.ModuleList]]:
    modules = module.named_modules()
    return [(path, child) for path, child in modules if isinstance(child, torch.nn.ModuleList)]


def _strays(module: torch.nn.Module, rename: Iterable[Any]) -> str:
    """What of a user's mapping lies nowhere; a path may begin anywhere in the model."""
    there = [f".{path}" for path, _ in module.named_modules()]
    own = [path for path in rename if isinstance(path, str) and path not in STANDARD_NAMES]
    lost = [path for path in own if not any(known.endswith(f".{path}") for known in there)]
    return f"At {', '.join(lost)} of the given rename= it has nothing. " if lost else ""


def _asked(lacks: list[str]) -> str:
    return ", ".join(f'"<path of {_MEANING[name]}>": "{name}"' for name in lacks)


def _is_part(name: str, module: torch.nn.Module, words: tuple[str, ...]) -> bool:
    norm = "norm" in type(module).__name__.lower() or "norm" in name.lower()
    dropout = isinstance(module, torch.nn.Dropout)
    return not norm and not dropout and any(word in name.lower() for word in words)
