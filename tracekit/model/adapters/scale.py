"""An attached adapter at more or less than its own strength, put back exactly."""

from __future__ import annotations

import math

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


def rescale(about: Origin, scale: float) -> None:
    """The attached adapter's change of each weight `scale` times its own; 1 is exactly as before.

    Errors: `ValueError` for an adapter whose layers have no scaling.
    """
    for layer, own in about.unscaled:
        layer.scaling.update(own)
    about.scale, about.unscaled = 1.0, []
    if scale == 1:
        return
    layers = [
        layer for layer in tuner_layers(about.root._module) if getattr(layer, "scaling", None)
    ]
    if not layers:
        raise InputError(
            f"scale={scale!r} was asked for; the adapter's layers have no scaling, as those of a "
            "LoRA do. Leave scale out."
        )
    about.scale, about.unscaled = float(scale), [(layer, dict(layer.scaling)) for layer in layers]
    for layer, own in about.unscaled:
        layer.scaling.update({key: value * scale for key, value in own.items()})
