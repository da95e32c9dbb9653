"""What the user says of a vector file: checked by itself, and against what the file says."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from tracekit.storage.files import UnreadableError, unreadable

_ADVICE = (
    "Give a block's number, from 0 (−1 is the embedding's). Give depth= for hidden states.",
    "Give depth= as the model's number of blocks.",
)


@dataclass(frozen=True)
class Given:
    """What the user says of a file: none of it is known where it is None."""

    layer: int | None = None
    first_layer: int | None = None
    depth: int | None = None
    site: str | None = None


def require_numbers(path: Path, given: Given) -> None:
    """Errors: `ValueError` for a layer or depth that is no whole number, or one that none has."""
    for name, least in (("layer", -1), ("first_layer", -1), ("depth", 1)):
        value = getattr(given, name)
        if value is None:
            continue
        if not _is_whole(value) or value < least:
            raise unreadable(path, f"{name}={value!r} was given", _ADVICE[name == "depth"])
    if given.layer is not None and given.depth is not None and given.layer >= given.depth:
        words = f"layer={given.layer} was given, and depth={given.depth}: no such block"
        raise unreadable(path, words, "It comes from another model, or layer= counts otherwise.")


def refuse_given(path: Path, given: Given) -> None:
    """Errors: `ValueError` for layers or a site of a file that says them itself."""
    told = {name: getattr(given, name) for name in ("layer", "first_layer", "site")}
    told = {name: value for name, value in told.items() if value is not None}
    if told:
        words = f"it says its layers and site itself, and {told} was given"
        raise unreadable(path, words, "Leave these out, and select: .sel(layer=…).")


def require_depth(path: Path, vectors: xr.DataArray, depth: int) -> None:
    """Errors: `ValueError` for vectors of layers that a model of so many blocks lacks."""
    beyond = [layer for layer in vectors["layer"].values.tolist() if layer >= depth]
    if beyond:
        words = f"it has the layers {beyond[:3]}, and a model of depth={depth}"
        raise unreadable(path, words, "Give the depth of the model it was made with.")


def require_model(path: Path, vectors: xr.DataArray, model: Any) -> None:
    """Errors: `ValueError` for vectors of another width, or of layers that the model lacks."""
    depth, width = len(model.layers), model._module.config.get_text_config().hidden_size
    beyond = [layer for layer in vectors["layer"].values.tolist() if not -1 <= layer < depth]
    if vectors.sizes["dim"] != width or beyond:
        raise UnreadableError(
            f"{str(path)!r} was to be read for a model of {depth} blocks and {width} dims; its "
            f"vectors have {vectors.sizes['dim']} dims and the layers "
            f"{vectors['layer'].values.tolist()[:4]} …. It comes from another model; give that one."
        )


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
