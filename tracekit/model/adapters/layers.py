"""The adapter's own modules inside a model: which they are, whether on, what they hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.record import recorded


def tuner_layers(module: torch.nn.Module) -> list[Any]:
    """The modules that hold an adapter."""
    kinds = _kinds()
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def adapter_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that an adapter added, by name."""
    layers = tuner_layers(module)
    if not layers:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

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


def refuse_adapted(module: torch.nn.Module, name: str) -> None:
    """Errors: `ValueError` for weights that are to be the base and already carry an adapter."""
    kinds = _kinds()
    held = [path for path, part in module.named_modules() if isinstance(part, kinds)]
    held += [path for path, _ in module.named_parameters() if ".lora_" in path]
    if held or getattr(module, "peft_config", None):
        where = f"{len(held)} modules hold it, such as {held[0]}" if held else "its type says so"
        raise InputError(
            f"The model {name} was to be loaded as a base, and already carries an adapter "
            f"({where}): switched off, it would still be on. A folder with both a config.json and "
            "an adapter_config.json gets its adapter from transformers: move adapter_config.json "
            "and the adapter's weights to a folder of their own and pass it as adapter=. From a "
            "module, take the adapter out first (peft's model.unload()), or make it part of the "
            "weights (model.merge_and_unload())."
        )


def current_adapter(model: TransformersModel) -> str | None:
    """The name of the adapter that is attached and switched on, or `None`."""
    about = recorded(model)
    attached = about.root.peft
    on = about.remote is True or is_on(model._module)
    return attached if attached is not None and on else None


def adapter_name(path: str) -> str:
    """A shipped organism's or a hub id's name; only the last part of a local folder."""
    # "." and ".." have none of their own
    return Path(os.path.abspath(path)).name if Path(path).is_dir() else path


def is_on(module: torch.nn.Module) -> bool:
    """Whether any of the adapter's modules is switched on."""
    return any(not layer.disable_adapters for layer in tuner_layers(module))


def turn(module: torch.nn.Module, on: bool) -> None:
    """Switch all of the adapter's modules on or off; no parameter learns."""
    for layer in tuner_layers(module):
        layer.enable_adapters(on)
    freeze(module)


def freeze(module: torch.nn.Module) -> None:
    """Evaluation mode, and no gradients for parameters."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def _kinds() -> tuple[type, ...]:
    # where peft was never imported, nothing is of its kinds; importing it takes as long as loading
    if "peft" not in sys.modules:
        return ()
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return BaseTunerLayer, AuxiliaryTrainingWrapper
