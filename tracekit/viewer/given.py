"""What `view` was given: checked, and described in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError, InputTypeError


def page_name(path: str | Path) -> Path:
    """The path of a page. Errors: `ValueError` for a name that says another format than HTML."""
    path = Path(path)
    if path.suffix.lower() not in ("", ".html", ".htm"):
        raise InputError(
            f"A page was asked for at {str(path)!r}, whose {path.suffix} says another format than "
            "HTML. Give a name that ends in .html; a browser prints that as PDF."
        )
    return path


def by_name(array: Any) -> dict[str, xr.DataArray]:
    """One array, or several by name, as the latter. Errors: `TypeError` for anything else."""
    if isinstance(array, xr.Dataset):
        raise InputTypeError(
            f"view was given a Dataset of {', '.join(map(str, array.data_vars))}; it colours one "
            "array of numbers. Of transcripts give tk.logprobs(model, runs), or what is to be seen "
            'in them: tk.find(runs, role="assistant"). Of others give one array, such as '
            "dataset['NAME']."
        )
    arrays = dict(array) if isinstance(array, Mapping) else {"": array}
    for one in arrays.values():
        if not isinstance(one, xr.DataArray):
            raise InputTypeError(
                f"view was given {type(one).__name__}; it shows labelled arrays. Give a DataArray "
                "(prompt, token, …) with the tokens' text, as tk.logprobs gives it, or a dict of "
                "several."
            )
    return arrays


def require_options(centre: Any, captions: Any, start: Any) -> None:
    """Errors: `TypeError` for a centre that is no number, captions and starts that are no dicts."""
    number = isinstance(centre, int | float | np.number) and math.isfinite(centre)
    if centre is not None and not number:
        raise InputTypeError(
            f"centre={centre!r} was given; it is the value without colour. Give a number, such as "
            "centre=0.0, or leave it out for the mean."
        )
    for name, value, like in (
        ("captions", captions, 'of text by prompt id, such as {"set/0": "What is asked"}'),
        ("start", start, 'of what is picked first, such as {"layer": 12}'),
    ):
        if value is not None and not isinstance(value, Mapping):
            raise InputTypeError(f"{name}={value!r} was given. Give a dict {like}.")


def present(array: xr.DataArray) -> np.ndarray:
    """Where a row has a token: (prompt, token)."""
    if "token_id" in array.coords:
        there: np.ndarray = array["token_id"].transpose("prompt", "token").values >= 0
        return there
    return array["token_text"].transpose("prompt", "token").values.astype(str) != ""


def whole(array: xr.DataArray, name: str) -> xr.DataArray:
    """The array as (prompt, token, …). Errors: `ValueError` for one that cannot be shown."""
    lacking = [dim for dim in ("prompt", "token") if dim not in array.dims]
    if lacking or "token_text" not in array.coords or not math.prod(array.shape[1:]):
        called = f" {name!r}" if name else ""
        raise InputError(
            f"view was given an array{called} of the dims {array.dims} (sizes {array.shape}) "
            f"{'with' if 'token_text' in array.coords else 'without'} token_text; it shows "
            "(prompt, token, …) with the tokens' text, as tk.capture and tk.logprobs give it. "
            "Keep the coordinates: values of your own go into array.copy(data=…), or take them "
            "from the transcripts: array.assign_coords(token_text=runs.token_text)."
        )
    if array.dtype.kind not in "fiub":
        raise InputError(f"view was given values of {array.dtype}; it colours numbers.")
    return array.transpose("prompt", "token", ...)


def alike(arrays: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """The first of some arrays. Errors: `ValueError` where another has other dims or labels."""
    if not arrays:
        raise InputError("view was given no array; give one, or several by name.")
    (name, first), *others = arrays.items()
    for other, array in others:
        if array.dims != first.dims or any(
            not array[dim].equals(first[dim]) for dim in first.dims[2:]
        ):
            raise InputError(
                f"view was given {name!r} of {first.dims[2:]} and {other!r} of {array.dims[2:]}; "
                "what is compared has the same dims and labels after the token. Select alike."
            )
    return first


def picks(array: xr.DataArray) -> list[dict[str, Any]]:
    """Each dim after the token, with its values in words."""
    return [
        {"name": str(dim), "values": [short(one) for one in array[dim].values.tolist()]}
        for dim in array.dims[2:]
    ]


def started(
    array: xr.DataArray, start: dict[str, Any], chosen: xr.DataArray | None
) -> dict[str, Any]:
    """Which index of each pick is shown first, and which pick follows another."""
    labels = {str(dim): array[dim].values.tolist() for dim in (*array.dims[2:], "prompt")}
    wrong = [(d, v) for d, v in start.items() if v not in labels.get(d, [])]
    if wrong:
        dim, value = wrong[0]
        raise InputError(
            f"start= was given {dim}={value!r}; the array has "
            f"{_some(labels[dim]) if dim in labels else 'the dims ' + ', '.join(labels)}. "
            "Choose among those."
        )
    first = {d: there.index(start[d]) if d in start else 0 for d, there in labels.items()}
    opens = first.pop("prompt")
    if chosen is None:
        return {"first": first, "opens": opens, "follows": None}
    if chosen.ndim != 1 or not {str(chosen.name), *map(str, chosen.dims)} <= set(labels):
        raise InputError(
            f"chosen= was given {str(chosen.name)!r} over {chosen.dims}; it is an array over one "
            f"dim, named as another, both of {', '.join(labels)}: layers named 'layer' by trait."
        )
    (leads,), follows = map(str, chosen.dims), str(chosen.name)
    order = [labels[follows].index(n) for n in chosen.sel({leads: labels[leads]}).values.tolist()]
    if follows not in start:
        first[follows] = order[first[leads]]
    return {
        "first": first,
        "opens": opens,
        "follows": {"leads": leads, "follows": follows, "order": order},
    }


def marked_tokens(array: xr.DataArray, marked: str | xr.DataArray) -> xr.DataArray:
    """Which tokens are marked: (prompt, token). Errors: `ValueError` for what is no mask."""
    if isinstance(marked, str):
        if marked not in array.coords:
            raise InputError(
                f"marked={marked!r} was asked for; the array's coordinates are "
                f"{', '.join(map(str, array.coords))}. Choose among those, or give a mask."
            )
        marked = array[marked]
    if set(marked.dims) != {"prompt", "token"} or marked.dtype.kind not in "bif":
        raise InputError(
            f"marked= was given {marked.dtype} over {marked.dims}; it is true or false over "
            "(prompt, token), such as of tk.find."
        )
    fitting = marked.reindex(prompt=array["prompt"], token=array["token"], fill_value=0)
    return fitting.transpose("prompt", "token") > 0


def described(array: xr.DataArray) -> Iterator[tuple[str, str, str]]:
    """Of each prompt its id, its group, and the rest that is known of it, in words."""
    columns = {
        str(name): coordinate.values
        for name, coordinate in array.coords.items()
        if coordinate.dims == ("prompt",) and name not in ("prompt", "group", "prompt_length")
    }
    groups = array["group" if "group" in array.coords else "prompt"].values
    for row, (prompt, group) in enumerate(zip(array["prompt"].values, groups, strict=True)):
        said = (f"{name}: {short(column[row])}" for name, column in columns.items())
        yield str(prompt), str(group), " · ".join(said)


def short(value: Any) -> str:
    """A value in words, cut where it is long."""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)[:120]


def _some(labels: Sequence[Any]) -> str:
    return ", ".join(map(repr, labels[:12])) + (
        f" and {len(labels) - 12} more" * (len(labels) > 12)
    )
