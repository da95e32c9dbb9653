"""Whether a site that is a function gives a value a token, proved by forwards of two widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError, InputTypeError
from tracekit.model import parts, sites
from tracekit.model.checks.probe import probe
from tracekit.model.record import origin, remote_options
from tracekit.transcripts.labels import RESERVED

Axes = tuple[str, ...]
# no number of heads, or other size of the model, equals both widths
PROBES = ((2, 5), (3, 7))


def axes_of(site: Any, dims: Sequence[str] | None, reduces: bool, projects: bool) -> Axes:
    """The names of the axes of a site's values after that of tokens.

    Errors: `ValueError` for dims of a site that has its own, for dims that are no names of their
    own, and for a projection or reduction along axes that do not allow it.
    """
    if dims is not None and (not callable(site) or not _are_names(dims)):
        raise InputError(
            f"dims={dims!r} was asked for with a site that is {type(site).__name__}. Give dims= "
            "with a function of the block alone (other sites have their own): a word for each axis "
            'after (row, token), each another and none of tracekit\'s, such as ("head", "dim").'
        )
    axes = tuple(dims or (("dim",) if callable(site) else sites.SITES.get(site, ("dim",))))
    if projects and (axes[-1] != "dim" or site in parts.PROJECTED):
        raise InputError(
            f"vectors= was given with site={site!r}, whose last axis is not that of the residual "
            "stream. Use residual, attention, mlp or heads, or a function of the block whose dims "
            'end with "dim".'
        )
    if reduces and site == "pattern":
        raise InputError(
            "reduce= was given with site='pattern', where each query has keys of its own. Capture "
            "the pattern, and reduce it with xarray."
        )
    return axes


def _are_names(dims: Any) -> bool:
    if not isinstance(dims, tuple | list):
        return False
    words = {dim for dim in dims if isinstance(dim, str) and dim.isidentifier()}
    taken = (words - {"dim"}) & {*RESERVED, "query", "key"}
    return len(words) == len(dims) > 0 and not taken


def require_tokens_first(
    model: TransformersModel, layers: Sequence[int], site: Any, axes: Axes | None = None
) -> tuple[int, ...]:
    """Refuse a function of the block whose values are not (row, column, …) or (row × column, dim).

    A model's own size may equal a batch's width by chance, and heads would be labelled as tokens:
    so what moves with the width, in two small forwards, is the axis of tokens.

    What follows the tokens is returned: how long each of `axes` is, or all of them as one.

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
    rests = {
        layer: [_rest(shape) for shape in shapes]
        for layer, *shapes in zip(layers, *seen, strict=True)
    }
    if axes is not None:
        _require_axes(rests, axes)
        return rests[layers[0]][0]
    return (max(math.prod(rest) for many in rests.values() for rest in many),)


def _rest(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[min(len(shape) - 1, 2) :]


def _require_axes(rests: Mapping[int, Sequence[tuple[int, ...]]], axes: Axes) -> None:
    found = {rest for many in rests.values() for rest in many}
    if len(found) > 1 or len(found.copy().pop()) != len(axes):
        raise InputError(
            f"dims={axes} was asked for, and after its tokens the site gives {sorted(found)} at "
            f"layers {list(rests)}, in rows of {' and '.join(str(n) for _, n in PROBES)} tokens. "
            "Name one dim for each axis; no axis may be of tokens (site='pattern' has one), nor "
            "longer at one layer than at another."
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
