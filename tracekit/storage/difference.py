"""Differences between arms, after the provenance check, and their size."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from tracekit.errors import InputError, InputKeyError
from tracekit.storage.provenance import MUST_AGREE, disagreements, read, refuse_disagreement, stamp


def difference(a: xr.DataArray, b: xr.DataArray, override: Sequence[str] = ()) -> xr.DataArray:
    """`a − b` with exact alignment, once both are known to be comparable.

    Base, revision, dtype, tokenizer, template, ids, site, metric and batch plan must agree, how
    gradients and patching maps were asked for, whose head read a lens, and of reduced values the
    tokens; adapter and edits may differ. Fields named in `override` may differ too, which the
    result records.

    Errors: `ValueError` naming each field that disagrees, or the labels that do not align;
    `KeyError` for an override that is no such field.

    >>> difference(traces, clean).dims
    ('prompt', 'token', 'layer', 'dim')
    """
    unknown = [name for name in override if name not in (*MUST_AGREE, "tokens")]
    if unknown:
        raise InputKeyError(
            f"override names {unknown}; the fields are {', '.join(MUST_AGREE)}, tokens."
        )
    made_a, made_b = read(a), read(b)
    # labels say which tokens there are, but for what was reduced over them
    reduced = made_a.get("reduce") is not None or made_b.get("reduce") is not None
    every = (*MUST_AGREE, "tokens") if reduced else MUST_AGREE
    fields = tuple(name for name in every if name not in override)
    refuse_disagreement(made_a, made_b, fields)
    # a mean over prompts has none
    if "prompt" in a.dims and "prompt" in b.dims:
        rows, others = list(a["prompt"].values), list(b["prompt"].values)
        if rows != others and set(rows) == set(others):
            b = b.sel(prompt=rows)
    _refuse_other_tokens(a, b)
    with xr.set_options(arithmetic_join="exact"):
        try:
            result = a - b
        except ValueError as error:
            raise InputError(
                f"These arrays do not align: {_misaligned(a, b)}. Select the same labels of both."
            ) from error
    overridden = disagreements(made_a, made_b, tuple(override))
    made = {"difference": [made_a, made_b], **{name: made_a.get(name) for name in fields}}
    if overridden:
        made["override"] = {name: list(values) for name, values in overridden.items()}
    return stamp(result.rename(a.name), made)


def norm(array: xr.DataArray) -> xr.DataArray:
    """The length of each value: (prompt, token, layer) of (prompt, token, layer, dim).

    Holes stay holes, so that a mean over tokens is one of tokens. (xarray's own `sum` makes 0 of
    them unless it is told `skipna=False`.)

    Errors: `ValueError` for an array without `dim`.

    >>> norm(difference(traces, clean)).mean("token").dims
    ('prompt', 'layer')
    """
    if "dim" not in array.dims:
        raise InputError(f"A norm over dim was asked for; the array has the dims {array.dims}.")
    with xr.set_options(keep_attrs=True):
        return ((array**2).sum("dim", skipna=False) ** 0.5).rename("norm")


def _refuse_other_tokens(a: xr.DataArray, b: xr.DataArray) -> None:
    """The same ids may be a longer prompt and a shorter response: labels then name other tokens."""
    if not all("prompt_length" in one.coords and "prompt" in one.dims for one in (a, b)):
        return
    ids = [set(map(str, one["prompt"].values)) for one in (a, b)]
    lengths = [
        dict(zip(map(str, one["prompt"].values), one["prompt_length"].values, strict=True))
        for one in (a, b)
    ]
    other = sorted(n for n in ids[0] & ids[1] if lengths[0][n] != lengths[1][n])
    if other:
        raise InputError(
            f"The response to {other[0]!r} begins behind {lengths[0][other[0]]} tokens in the "
            f"first array and behind {lengths[1][other[0]]} in the other ({len(other)} of "
            f"{len(ids[0])} prompts): the same labels name other tokens. Encode both alike."
        )


def _misaligned(a: xr.DataArray, b: xr.DataArray) -> str:
    if a.dims != b.dims:
        return f"their dims are {a.dims} and {b.dims}"
    parts = []
    for dim in a.dims:
        if dim in a.coords and dim in b.coords and not a.indexes[dim].equals(b.indexes[dim]):
            x, y = set(a.indexes[dim]), set(b.indexes[dim])
            parts.append(f"{dim}: {len(x - y)} labels only in the first, {len(y - x)} in the other")
    return "; ".join(parts) or "their labels differ"
