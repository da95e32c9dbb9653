"""Whether vectors or traces fit a model: width, depth, tokenizer, weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from nnsight import TransformersModel

from tracekit.errors import InputError, InputTypeError, brief
from tracekit.model.load import origin
from tracekit.storage.identity import tokenizer_hash, vocabulary_hash
from tracekit.storage.provenance import source as source


def listed(layers: Any) -> list[int] | None:
    """One layer or several as a list; `None` stays.

    Errors: `TypeError` for anything but whole numbers.

    >>> listed(5), listed(range(2))
    ([5], [0, 1])
    """
    if layers is None:
        return None
    numbers = np.asarray(list(layers) if isinstance(layers, range) else layers)
    if numbers.ndim > 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise InputTypeError(
            f"layers={brief(layers)} was asked for; give a block's index such as 12, or several "
            "such as range(12, 24). −1 is the embedding output."
        )
    return [operator.index(number) for number in np.atleast_1d(numbers).tolist()]


def require_fit(
    model: TransformersModel, array: xr.DataArray, *, transfer: bool = False, what: str = "vector"
) -> dict[str, Any]:
    """Refuse an array (…, dim) that cannot act on this model; what to record of where it is from.

    The width (dim), the layers, and the source's depth and tokenizer must be the model's. An
    array made with other weights needs `transfer=True`; the result then holds both fingerprints.
    One without provenance is known by its width and layers alone, and recorded as such.

    Errors: `ValueError` naming both sides.

    >>> require_fit(model, vector)["source"] == source(vectors)["weights"]
    True
    """
    _require_size(model, array, what)
    made = source(array)
    if made is None:
        return {"source": "unknown"}
    _require_depth(model, made, what)
    _require_tokenizer(model, made, what)
    about, weights = origin(model), made["weights"]
    if weights == about.weights:
        return {"source": weights}
    if not transfer:
        raise InputError(
            f"The {what} was made with {_shown(made)}; this model is {about.name} "
            f"({about.dtype}, weights {about.weights}). Pass transfer=True to use it all the "
            "same, which the result records."
        )
    return {"source": weights, "transfer": True, "source_model": made.get("model")}


def require_layers(array: xr.DataArray, layers: Sequence[int]) -> None:
    """Errors: `ValueError` for layers that the array lacks."""
    there = np.atleast_1d(array["layer"].values).tolist()
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise InputError(
            f"Layers {missing} were asked for and are not in the array, which has {there}. "
            "Choose among those."
        )


def require_blocks(model: TransformersModel, layers: Sequence[int]) -> None:
    """Errors: `ValueError` for no layers, one named twice, or one that is no block."""
    depth = len(model.layers)
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise InputError(
            f"Layers {list(layers)} were asked for; this model has blocks 0 to {depth - 1}, and "
            "each is named once. An edit acts on a block's output."
        )


def _require_size(model: TransformersModel, array: xr.DataArray, what: str) -> None:
    depth, width = len(model.layers), model._module.config.get_text_config().hidden_size
    if array.sizes["dim"] != width:
        raise InputError(
            f"The {what} has {array.sizes['dim']} dims and the residual stream of "
            f"{origin(model).name} has {width}: it comes from another model."
        )
    labels = np.atleast_1d(array["layer"].values).tolist() if "layer" in array.coords else []
    beyond = [layer for layer in labels if not -1 <= layer < depth]
    if beyond:
        raise InputError(
            f"The {what} has the layers {beyond} and {origin(model).name} has blocks 0 to "
            f"{depth - 1}: it comes from a deeper model."
        )


def _require_depth(model: TransformersModel, made: Mapping[str, Any], what: str) -> None:
    depth = made.get("depth", len(model.layers))
    if depth != len(model.layers):
        raise InputError(
            f"The {what} was made with {_shown(made)}, which has {depth} blocks; "
            f"{origin(model).name} has {len(model.layers)}. Layers do not correspond."
        )


def _require_tokenizer(model: TransformersModel, made: Mapping[str, Any], what: str) -> None:
    # a base and an instruct model share the vocabulary and differ in the end-of-turn id
    kind, hashed = (
        ("vocabulary", vocabulary_hash) if "vocabulary" in made else ("tokenizer", tokenizer_hash)
    )
    theirs, ours = made.get(kind), hashed(model.tokenizer)
    if theirs is None or theirs == ours:
        return
    raise InputError(
        f"The {what} was made with {_shown(made)} and the {kind} {theirs}; "
        f"{origin(model).name} has the {kind} {ours}. "
        "Extract it with a model of the same vocabulary."
    )


def _shown(made: Mapping[str, Any]) -> str:
    return f"{made.get('model')} ({made.get('dtype')}, weights {made.get('weights')})"
