"""Whether a site that is a function gives a value a token, proved by forwards of two widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError, InputTypeError
from tracekit.model.checks.probe import probe
from tracekit.model.record import origin, remote_options

# no number of heads, or other size of the model, equals both widths
PROBES = ((2, 5), (3, 7))


def require_tokens_first(model: TransformersModel, layers: Sequence[int], site: Any) -> None:
    """Refuse a function of the block whose values are not (row, column, …) or (row × column, dim).

    A model's own size may equal a batch's width by chance, and heads would be labelled as tokens:
    so what moves with the width, in two small forwards, is the axis of tokens.

    Errors: `ValueError` with the shapes that were found; `TypeError` for what is no tensor.
    """
    base = origin(model).root
    seen = [_shapes(base, layers, site, rows, columns) for rows, columns in PROBES]
    for layer, *shapes in zip(layers, *seen, strict=True):
        if not all(map(_fits, shapes, PROBES)):
            found = " and ".join(
                f"{shape} of {rows} rows with {columns} tokens"
                for shape, (rows, columns) in zip(shapes, PROBES, strict=True)
            )
            raise InputError(
                f"The site gives, at layer {layer}, values of shape {found}; a capture needs "
                "(row, token, …), or (row × token, dim). Move the axes inside the function, such "
                "as block.attn.output[1].transpose(1, 2) for (row, head, token, key)."
            )


def _fits(shape: tuple[int, ...], widths: tuple[int, int]) -> bool:
    rows, columns = widths
    return (len(shape) > 2 and shape[:2] == widths) or (
        len(shape) == 2 and shape[0] == rows * columns
    )


def _shapes(
    model: TransformersModel, layers: Sequence[int], site: Any, rows: int, columns: int
) -> list[tuple[int, ...]]:
    inputs = probe(model, [columns] * rows).model_inputs
    options = {"use_cache": False, **remote_options(model)}
    with torch.no_grad(), model.trace(inputs, **options) as tracer:
        values = nnsight.save([])
        for layer in layers:
            values.append(site(model.layers[layer]))
        tracer.stop()
    for value in values:
        if not isinstance(value, torch.Tensor):
            raise InputTypeError(
                f"The site gives a {type(value).__name__}; a capture needs one tensor (row, token, "
                "…). Choose one, such as block.attn.output[0]."
            )
    return [tuple(value.shape) for value in values]
