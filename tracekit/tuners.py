"""The adapter's own modules inside a model: which they are, whether on, what they hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.origin import origin


def tuner_layers(module: torch.nn.Module) -> list[Any]:
    """The modules that hold an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def adapter_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that an adapter added, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = tuner_layers(module)
    held = set()
    for layer in layers:
        tuner = isinstance(layer, BaseTunerLayer)
        inner = layer.get_base_layer() if tuner else layer.original_module
        held |= {id(p) for p in inner.parameters()}
    inside = {id(layer) for layer in layers}
    return {
        f"{name}.{own}": parameter
        for name, layer in module.named_modules()
        if id(layer) in inside
        for own, parameter in layer.named_parameters()
        if id(parameter) not in held
    }


def current_adapter(model: TransformersModel) -> str | None:
    """The name of the adapter that is attached and switched on, or `None`."""
    about = origin(model)
    attached = about.root.peft
    on = about.remote is True or is_on(model._module)
    return attached if attached is not None and on else None


def adapter_name(path: str) -> str:
    """A shipped organism's or a hub id's name; only the last part of a local folder."""
    return Path(path).name if Path(path).is_dir() else path


def is_on(module: torch.nn.Module) -> bool:
    """Whether any of the adapter's modules is switched on."""
    return any(not layer.disable_adapters for layer in tuner_layers(module))


def turn(module: torch.nn.Module, on: bool) -> None:
    """Switch all of the adapter's modules on or off; no parameter learns."""
    for layer in tuner_layers(module):
        layer.enable_adapters(on)
    freeze(module)


@contextlib.contextmanager
def turned(model: TransformersModel, on: bool) -> Iterator[None]:
    """The attached adapter switched on or off inside, and as it was afterwards."""
    before = is_on(model._module)
    turn(model._module, on)
    try:
        yield
    finally:
        turn(model._module, before)


def freeze(module: torch.nn.Module) -> None:
    """Evaluation mode, and no gradients for parameters."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
