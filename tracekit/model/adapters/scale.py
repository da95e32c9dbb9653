"""An attached adapter at more or less than its own strength, put back exactly."""

from __future__ import annotations

import math
from typing import Any

import torch

from tracekit.errors import InputError
from tracekit.model.adapters.layers import tuner_layers
from tracekit.model.record import Origin


def refuse_scale(scale: float, name: str | None, remote: bool) -> None:
    """Errors: `ValueError` for a strength that is no number, or of no adapter that is here."""
    whole = isinstance(scale, int | float) and math.isfinite(scale)
    if scale == 1 or (whole and name is not None and not remote):
        return
    what = "the model is on a server" if remote else f"the adapter is {name!r}"
    raise InputError(
        f"scale={scale!r} was asked for, and {what}. Give a finite number, and the LoRA of a model "
        "that is loaded here."
    )


def unscalable(module: torch.nn.Module) -> list[Any]:
    """The adapter's modules whose change is more than scaling · B A: it can't be made stronger.

    Those of DoRA (a length of each row besides), whole modules (`modules_to_save`), rows of an
    embedding (`trainable_token_indices`), and adapters that are no LoRA.
    """
    return [x for x in tuner_layers(module) if not getattr(x, "scaling", None) or _is_dora(x)]


def rescale(about: Origin, scale: float) -> None:
    """The attached adapter's change of each weight `scale` times its own; 1 is exactly as before.

    Errors: `ValueError` for an adapter of which anything is `unscalable`.
    """
    for layer, own in about.unscaled:
        layer.scaling.update(own)
    about.scale, about.unscaled = 1.0, []
    if scale == 1:
        return
    module = about.root._module
    if others := unscalable(module):
        kinds = sorted({kind_of(layer) for layer in others})
        raise InputError(
            f"scale={scale!r} was asked for; {len(others)} of the adapter's modules "
            f"({', '.join(kinds)}) change what they hold by more than a LoRA's scaled product, and "
            "would stay at their own strength. Leave scale out."
        )
    about.scale = float(scale)
    about.unscaled = [(layer, dict(layer.scaling)) for layer in tuner_layers(module)]
    for layer, own in about.unscaled:
        layer.scaling.update({key: value * scale for key, value in own.items()})


def kind_of(layer: Any) -> str:
    """What a module of an adapter is: DoRA, or its class in peft.

    >>> kind_of(torch.nn.Linear(2, 2))
    'Linear'
    """
    return "DoRA" if _is_dora(layer) else type(layer).__name__


def _is_dora(layer: Any) -> bool:
    return bool(getattr(layer, "lora_magnitude_vector", None))
