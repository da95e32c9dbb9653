"""What made an array, and whether two arrays may be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.identity import digest

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
MUST_AGREE = (
    "model",
    "revision",
    "weights",
    "dtype",
    "quantisation",
    "tokenizer",
    "template",
    "ids",
    "site",
    "vectors",
    "probes",
    "metric",
    "gradient",
    "activation_patching",
    "attribution_patching",
    "read_by",
    "reduce",
    "round_to",
    "batches",
)
# of who read an array (a lens), an adapter and edits may differ, as of who made it
READ_BY = ("model", "revision", "weights", "dtype", "quantisation")
# what made an array: two arrays that both lack one of these may not be compared
MUST_BE_KNOWN = ("weights", "ids")


def stamp(array: Labelled, made_with: Mapping[str, Any]) -> Labelled:
    """The array with `made_with` as its provenance (one JSON string in `attrs`)."""
    text = json.dumps(dict(made_with), sort_keys=True, ensure_ascii=False)
    return array.assign_attrs(provenance=text)


def read(array: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The provenance of an array.

    Errors: `ValueError` when it carries none.
    """
    text = array.attrs.get("provenance")
    if text is None:
        raise InputError(
            f"This {type(array).__name__} carries no provenance (attributes: "
            f"{sorted(map(str, array.attrs)) or 'none'}). Use arrays made by tracekit, or keep "
            "attributes through arithmetic with xr.set_options(keep_attrs=True)."
        )
    return json.loads(text)


def source(array: xr.DataArray) -> dict[str, Any] | None:
    """The provenance of the traces that an array goes back to; `None` when it has none.

    >>> source(vectors)["depth"]
    30
    """
    made: Any = read(array) if "provenance" in array.attrs else None
    while isinstance(made, Mapping) and "weights" not in made:
        made = made.get("source")
    return dict(made) if isinstance(made, Mapping) else None


def vectors_hash(traits: Sequence[str], layers: Sequence[int], values: np.ndarray) -> str:
    """What provenance names vectors (trait, layer, dim) by, where a capture projects on them."""
    names = digest([list(traits), list(layers)])
    return (
        names + hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()[:16]
    )


def disagreements(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: tuple[str, ...] = MUST_AGREE
) -> dict[str, tuple[Any, Any]]:
    """The fields of two provenances that should agree and do not, with both values.

    A field that says what made the arrays (weights, ids) and that neither knows counts as well.
    Of batches the plan counts: two budgets may make the same one.
    """
    return {
        name: (a.get(name), b.get(name))
        for name in fields
        if _compared(a, name) != _compared(b, name)
        or (name in MUST_BE_KNOWN and a.get(name) is None)
    }


def _compared(made: Mapping[str, Any], name: str) -> Any:
    value = made.get(name)
    if name == "batches" and isinstance(value, Mapping):
        return value.get("plan")
    if name == "read_by" and isinstance(value, Mapping):
        return [value.get(field) for field in READ_BY]
    return value


def refuse_disagreement(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: tuple[str, ...] = MUST_AGREE
) -> None:
    """Raise `ValueError`, naming each field and both values, unless all `fields` agree."""
    found = disagreements(a, b, fields)
    if found:
        listed = "; ".join(f"{name}: {x!r} against {y!r}" for name, (x, y) in found.items())
        raise InputError(
            f"These arrays may not be compared: they differ in {listed}. "
            "Capture both on the same ids and weights, or name the fields in override=(…)."
        )
