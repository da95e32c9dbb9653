"""Which layer a value of another tool's file is of: tables, dictionaries by layer and by trait."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.storage.files import unreadable
from tracekit.storage.vector_files.arguments import Given, require_numbers
from tracekit.storage.vector_files.key_names import SITES, WHOLE, by_trait_first, from_end, place
from tracekit.storage.vector_files.vector_labels import assembled

WANTED = "a dictionary from layer to a tensor (dim), a table (layer, dim) or a vector (dim)"
_HOOKS = ("hookName", "hook_name", "hook_point", "hook", "layer")
# containers of vectors, and what lies beside them
_TABLES = ("layer_activations", "directions", "layers", "vectors", "steering_vectors", "traits")


def labelled(path: Path, content: Any, given: Given) -> xr.DataArray:
    """The vector (layer, dim), or vectors (trait, layer, dim), of what a file holds.

    `content` is an array, or a dictionary of arrays and dictionaries. Layers are block outputs
    from 0: `hidden_states[n]` and the input of block n are layer n − 1.

    Errors: `ValueError` naming the argument that is due, and for values of other forms.
    """
    require_numbers(path, given)
    if isinstance(content, Mapping):
        _refuse_known(path, content)
        content, given = _opened(path, content, given)
    if isinstance(content, np.ndarray):
        return assembled(_of_array(path, content, given), path, given.site or "residual")
    traits = _by_trait(content, given)
    if traits is None:
        return _by_layer(path, content, given)
    named = {trait: labelled(path, inner, given) for trait, inner in traits.items()}
    layers = {trait: array["layer"].values.tolist() for trait, array in named.items()}
    if len(set(map(str, layers.values()))) > 1:
        raise unreadable(path, f"its traits have the layers {layers}", "Give all the same ones.")
    first = next(iter(named.values()))
    index = xr.Variable("trait", np.array(list(named), np.str_))
    return xr.concat(list(named.values()), index, join="exact", combine_attrs="drop").assign_attrs(
        first.attrs
    )


def squeezed(values: np.ndarray) -> np.ndarray:
    """A row by itself, as some tools keep it, without its axis.

    >>> squeezed(np.ones((1, 8))).shape
    (8,)
    """
    return values[0] if values.ndim == 2 and len(values) == 1 else values


def _of_array(path: Path, values: np.ndarray, given: Given) -> dict[int, np.ndarray]:
    values = squeezed(values)
    layer, first, depth = given.layer, given.first_layer, given.depth
    due = {"layer": layer, "first_layer": first, "depth": depth}
    if values.ndim == 1:
        if layer is None or first is not None:
            hint = re.search(r"layers?[_-]?(\d+)", path.stem.lower())
            advice = "Give layer= alone."
            advice += (
                f" (Its name says {hint[1]}; docs/files_in.md says whose is what.)" if hint else ""
            )
            raise unreadable(path, f"one vector (dim), and {due} was given", advice)
        return {layer: values}
    if values.ndim != 2 or layer is not None:
        words = f"a tensor of shape {values.shape}, and {due} was given; {WANTED} was expected"
        raise unreadable(path, words, "A table takes first_layer= or depth= (or model=).")
    count = len(values)
    if first is None and depth is not None and count == depth + 1 > 1:
        return dict(enumerate(values[:-1], -1))
    if first is None and count != depth:
        words = f"a table of {count} rows, and depth={depth}: no telling which layer a row is"
        raise unreadable(path, words, "Give depth= (the model's blocks) or first_layer=.")
    start = first or 0
    if depth is not None and start + count > depth:
        words = f"{count} rows from first_layer={start} do not fit depth={depth}"
        raise unreadable(path, words, "Give depth= alone for a table of hidden states.")
    return dict(enumerate(values, start))


def _opened(path: Path, content: Mapping[Any, Any], given: Given) -> tuple[Any, Given]:
    """A dictionary of vectors and words about them, as the vectors alone."""
    content, given = _with_site(path, content, given)
    tables = [name for name in _TABLES if isinstance(content.get(name), Mapping | np.ndarray)]
    vectors = [name for name in WHOLE if isinstance(content.get(name), np.ndarray)]
    others = [name for name, value in content.items() if _is_values(value)]
    if len(tables) > 1 or (tables and vectors):
        words = f"it holds {tables + vectors}, each of which may be its vectors"
        raise unreadable(path, words, "Save the one that is meant alone.")
    if tables:
        _say_beside(path, content, tables[0])
        return by_trait_first(content[tables[0]]), given
    if len(vectors) == 1 == len(others):
        _say_beside(path, content, vectors[0])
        hooks = [content[name] for name in _HOOKS if content.get(name) is not None]
        at = place(hooks[0]) if hooks else None
        if at is not None:
            _refuse_other_layer(path, at[0], given.layer)
            given = replace(given, layer=at[0], site=_site(path, {at[1]}, given.site))
        return content[vectors[0]], given
    return by_trait_first(content), given


def _with_site(
    path: Path, content: Mapping[Any, Any], given: Given
) -> tuple[Mapping[Any, Any], Given]:
    """The dictionary without the site that it says of its vectors, and that among what is given."""
    kind, own = content.get("layer_type"), content.get("site")
    if kind is not None:
        given = replace(given, site=_site(path, {kind}, given.site))
    if not isinstance(own, str):
        return content, given
    if given.site not in (None, own):
        words = f"site={given.site!r} was given, and it says {own!r}"
        raise unreadable(path, words, "Leave site= out.")
    rest = {name: value for name, value in content.items() if name != "site"}
    return rest, replace(given, site=own)


def _refuse_other_layer(path: Path, own: int, given: int | None) -> None:
    if given not in (None, own):
        words = f"layer={given} was given, and it says the layer {own}"
        raise unreadable(path, words, "Leave layer= out.")


def _say_beside(path: Path, content: Mapping[Any, Any], taken: str) -> None:
    """Numbers and arrays beside the vectors are no part of what is read: a scale, say."""
    read = (taken, *_HOOKS)
    beside = {
        name: f"an array of {np.shape(value)}" if _is_values(value) else value
        for name, value in content.items()
        if isinstance(value, int | float | np.ndarray) and not isinstance(value, bool)
    }
    words = ", ".join(f"{name} ({value})" for name, value in beside.items() if name not in read)
    if words:
        warnings.warn(
            f"{str(path)!r} has beside {taken!r} what is not read: {words}. The values are as the "
            "file has them; multiply them yourself where a scale or a sign is meant.",
            stacklevel=6,
        )


def _is_values(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _by_trait(content: Any, given: Given) -> Mapping[str, Any] | None:
    """Dictionaries (or, where the layer is given, arrays) by a trait's name, if it is that."""
    if not isinstance(content, Mapping) or not content:
        return None
    names = all(
        isinstance(key, str) and place(key) is None and not from_end(key) for key in content
    )
    kinds = {isinstance(value, Mapping) for value in content.values()}
    arrays = all(isinstance(value, np.ndarray) for value in content.values())
    told = any(v is not None for v in (given.layer, given.first_layer, given.depth))
    return content if names and (kinds == {True} or (arrays and told)) else None


def _by_layer(path: Path, content: Any, given: Given) -> xr.DataArray:
    named = _places(path, content)
    told = {"layer": given.layer, "first_layer": given.first_layer}
    if any(value is not None for value in told.values()):
        words = f"it names its layers itself ({sorted(named)[:3]}), and {told} was given"
        raise unreadable(
            path, words, "Leave layer= and first_layer= out, and select: .sel(layer=…)."
        )
    outside = [at for at in named if given.depth is not None and at >= given.depth]
    if outside:
        words = f"it has the layers {outside[:3]}, and a model of depth={given.depth}"
        raise unreadable(path, words, "Give the depth of the model it was made with.")
    rows = {at: squeezed(values) for at, (values, _) in named.items()}
    return assembled(rows, path, _site(path, {word for _, word in named.values()}, given.site))


def _places(path: Path, content: Any) -> dict[int, tuple[np.ndarray, str]]:
    """Values by layer, each with the word of its key that may name a site."""
    items = list(content.items()) if isinstance(content, Mapping) else []
    named = [(place(key), value) for key, value in items if isinstance(value, np.ndarray)]
    by_layer = {at[0]: (value, at[1]) for at, value in named if at is not None}
    if not by_layer or len(by_layer) < len(items):
        shown = sorted(map(str, content))[:4] if isinstance(content, Mapping) else type(content)
        words = f"it holds {shown}; a dictionary from layer to a tensor, once each, was expected"
        negative = [key for key, _ in items if from_end(key)]
        advice = "Save its tensors again, as " + WANTED + "."
        if negative:
            advice = (
                f"Its layers count from the end ({negative[0]}; −1 of hidden states is normed, −2 "
                "is the last block but one). Save them again under the numbers of blocks from 0."
            )
        raise unreadable(path, words, advice)
    return by_layer


def _site(path: Path, words: set[str], given: str | None) -> str:
    known = {SITES.get(word) for word in words}
    site = known.pop() if len(known) == 1 else None
    if site is None and given is None:
        listed = f"vectors of {sorted(words)}; what these are here is not known"
        raise unreadable(path, listed, "Give site=, such as 'residual', 'attention' or 'mlp'.")
    if site is not None and given not in (None, site) and words != {""}:
        raise unreadable(
            path, f"site={given!r} was given, and it says {site!r}", "Leave site= out."
        )
    return given or str(site)


def _refuse_known(path: Path, content: Mapping[Any, Any]) -> None:
    """Files of other things that lie about with the same suffix, by what they are."""
    names = [str(name) for name in content]
    if any("lora_A" in name or "lora_B" in name for name in names):
        raise unreadable(path, "a LoRA adapter's weights", "Load it: tk.load(…, adapter=FOLDER).")
    if any(name.split(".")[0] in ("W_dec", "W_enc", "decoder", "encoder") for name in names):
        words = f"a sparse autoencoder's weights ({names[:4]})"
        raise unreadable(
            path,
            words,
            "One feature is a row of its decoder (W_dec[n]): save that as .npy and read it with "
            "layer=, or give it to tk.steer(model, W_dec[n], layers=[…]).",
        )
    if any(name.endswith(("embed_tokens.weight", "lm_head.weight")) for name in names):
        raise unreadable(path, "a model's own weights", "Load it: tk.load(FOLDER).")


def require_floats(path: Path, values: np.ndarray) -> np.ndarray:
    """Errors: `ValueError` for values that are no floats."""
    if values.dtype.kind != "f":
        raise unreadable(path, f"values of {values.dtype}", "Save floats.")
    return values
