"""The adapter at more than its strength, put back exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tracekit import Model
from tracekit.errors import InputError
from tracekit.model.adapters.layers import current_adapter, tuner_layers


@contextlib.contextmanager
def scaled(model: Model, factor: float) -> Iterator[Model]:
    """The attached adapter's change of each weight times `factor`; afterwards as before, exactly.

    Restores on exceptions too, and nests. What is made inside does not say so by itself: mark it.

    Errors: `ValueError` for a model without an adapter that is on, for one whose layers have no
    scaling, and for a factor that is not above 0.

    >>> with tk.adapter(model, lora), scaled(model, 2.0):
    ...     loud = tk.capture(model, runs, layers=[12])
    """
    layers = [layer for layer in tuner_layers(model._module) if getattr(layer, "scaling", None)]
    if current_adapter(model) is None or not layers or not factor > 0:
        raise InputError(
            f"An adapter was to act {factor} times as strongly; the one that is on is "
            f"{current_adapter(model)!r}, and {len(layers)} of its layers have a scaling. Switch a "
            "LoRA on, and give a factor above 0."
        )
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer, values in zip(layers, before, strict=True):
            layer.scaling.update({name: value * factor for name, value in values.items()})
        yield model
    finally:
        for layer, values in zip(layers, before, strict=True):
            layer.scaling.update(values)
