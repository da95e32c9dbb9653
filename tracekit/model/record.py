"""What a loaded model is: recorded once by `load`, read by provenance, adapters and edits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.errors import InputTypeError
from tracekit.model.release import unbind
from tracekit.model.settled import Settled, Settling
from tracekit.model.weights import Watch, weights_fingerprint

QUANTISED = ("nf4", "fp4", "int4", "int8")
CUSTOM = {"kind": "custom"}
FLOATS = ("float32", "bfloat16", "float16", "float64")


@dataclass
class Origin(Settling):
    """Kept on the torch module, so that edited copies and plain nnsight code share it.

    What is `Settled` was proved or read off the weights before the first value left:
    `weights` is their fingerprint; `reference` the probe's logits before any adapter was attached
    (`None` when checks are off); `refused` maps what this architecture does not allow (`unembed`,
    `steps` of a generation) to the reason; `unproved` says of `attention` and `mlp` at which
    blocks they are not what the block adds, and why (`None`: no proof was run yet).

    `proved` holds what was proved later still; `share` is (rank, ranks) of a copied model.
    `bare` is the module tree before an adapter was attached, `files` what that adapter was read
    from; `broken` says that a change of the weights was not finished, `changing` which thread is
    at it, and `inside` which thread is in an `adapter` block. `scale` is how many times its own
    strength the adapter has, and `unscaled` what its layers' scaling is without it. `watch` tells
    when the weights are no longer those of the fingerprint.
    """

    root: Any
    name: str
    revision: str | None
    dtype: str
    quantisation: dict[str, Any] | None = None
    remote: bool | str = False
    adapters: dict[str, str] = field(default_factory=dict)
    proved: set[str] = field(default_factory=set)
    share: tuple[int, int] = (0, 1)
    bare: Any = None
    files: Any = None
    broken: str | None = None
    changing: int | None = None
    inside: int | None = None
    scale: float = 1.0
    unscaled: list[tuple[Any, dict[str, float]]] = field(default_factory=list)
    pending: Callable[[], bool] | None = None
    watch: Watch | None = None

    weights = Settled[str](str)
    reference = Settled[torch.Tensor | None](lambda: None)
    unproved = Settled[dict[str, dict[int, str]] | None](lambda: None)
    refused = Settled[dict[str, str]](dict)


def origin(model: TransformersModel) -> Origin:
    """What `load` recorded about a model that is sound and free for this thread.

    Every function that runs, edits or describes a model comes through here.

    Errors: `TypeError` for a model that `load` did not make; `RuntimeError` for one whose weights
    were left half changed, or that another thread holds in an `adapter` block.
    """
    about = recorded(model)
    if {about.changing, about.inside} - {None, threading.get_ident()}:
        raise RuntimeError(
            f"{about.name} was asked for, and another thread is inside a `with tracekit.adapter` "
            "block on it: its weights are not the ones this call would name. Wait for the end of "
            "that block, or load the model once for each thread."
        )
    if about.broken is not None and about.changing is None:
        raise RuntimeError(about.broken)
    return about


def recorded(model: TransformersModel) -> Origin:
    """What `load` recorded about a model, in whatever state it is.

    Errors: `TypeError` for a model that `load` did not make.
    """
    about = getattr(getattr(model, "_module", None), "tracekit_origin", None)
    if about is None:
        raise InputTypeError(
            f"A model made by tracekit.load is needed; this is a {type(model).__name__}. "
            "Use tracekit.load(name, folder or module)."
        )
    return about


def fingerprinted(about: Origin) -> str:
    """The fingerprint of the weights as they are, taken again where they were written to.

    Not while an adapter is on, which may hold its own values in a parameter of the base.
    """
    known = about.weights
    if about.watch is not None and about.watch.is_over(about.root._module):
        known = about.weights = weights_fingerprint(about.root._module, about.watch.names)
        about.watch = about.watch.again(about.root._module)
        about.reference = None  # made anew where an adapter comes
    return known


def own_edits(model: TransformersModel) -> list[dict[str, Any]]:
    """What each edit is that tracekit made on this copy of a model, in order."""
    return list(model.__dict__.get("tracekit_edits", []))


def edits_of(model: TransformersModel) -> list[dict[str, Any]]:
    """What each edit on this model is; an edit made with plain nnsight counts as `CUSTOM`."""
    known = own_edits(model)
    return known + [CUSTOM] * max(len(model._edits) - len(known), 0)


def end_edit(model: TransformersModel, edited: TransformersModel, edit: dict[str, Any]) -> None:
    """The end of an edit: its copy of `model` records the `edit`, and forgets itself."""
    unbind(edited)
    edited.tracekit_edits = [*own_edits(model), edit]


def remote_options(model: TransformersModel) -> dict[str, Any]:
    """What a trace or a generation of this model needs to run where the model is."""
    where = origin(model).remote
    return {"remote": where} if where else {}


def parallel_degree(module: torch.nn.Module) -> int:
    """The number of ranks that the weights are split over."""
    return int(getattr(module, "_tp_size", None) or 1)


def described_quantisation(module: torch.nn.Module) -> dict[str, Any] | None:
    """How a quantised model holds its weights, as its configuration says; `None` for floats."""
    config = getattr(module.config, "quantization_config", None)
    if config is None:
        return None
    settings = dict(config) if isinstance(config, dict) else config.to_dict()
    return {str(k): v for k, v in settings.items() if isinstance(v, str | int | float | bool) and v}


def held_dtype(module: torch.nn.Module) -> str:
    """What the weights are held as: `nf4`, `int8`, another quantiser's name, or a float type."""
    settings = described_quantisation(module)
    if settings is None:
        return str(module.dtype).removeprefix("torch.")
    if settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        return str(settings.get("bnb_4bit_quant_type", "fp4"))
    if settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        return "int8"
    return str(settings.get("quant_method", "quantised"))
