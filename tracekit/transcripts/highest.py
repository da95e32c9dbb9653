"""The places of a (prompt, token) array with the largest values, each with the words around it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tracekit.errors import InputError

_DIMS = ("prompt", "token")


def highest(
    array: xr.DataArray,
    count: int = 10,
    *,
    context: int = 4,
    transcripts: xr.Dataset | None = None,
) -> xr.Dataset:
    """The `count` largest values of an array over (prompt, token), with the words around each.

    Over (top): `value`, its `prompt` and `token` labels, and `text`, the token in brackets between
    `context` tokens before it and as many after. Words are those that ride along (`token_text`) or
    of the whole `transcripts`, where a capture kept some tokens only. Holes do not count; take
    `-array` for the smallest. `.to_pandas()` is a table.

    Errors: `ValueError` for other dims (choose with `.sel`), without words, for a count below 1.

    >>> text = ("prompt", "token"), [["I", " like", " tea"]]
    >>> coords = {"prompt": ["a/0"], "token": [0, 1, 2], "token_text": text}
    >>> array = xr.DataArray([[0.1, 0.2, 0.9]], coords, ("prompt", "token"))
    >>> highest(array, 1, context=1).text.values.tolist()
    [' like[ tea]']
    """
    values, words = _checked(array, count, transcripts)
    flat = values.values.astype(np.float64).ravel()
    there = np.flatnonzero(~np.isnan(flat))
    order = there[np.argsort(-flat[there], kind="stable")][:count]
    rows, columns = np.unravel_index(order, values.shape)
    prompts, tokens = values["prompt"].values[rows], values["token"].values[columns]
    places = zip(prompts, tokens, strict=True)
    texts = [_around(words.sel(prompt=prompt), int(token), context) for prompt, token in places]
    named = {"value": flat[order], "prompt": prompts, "token": tokens, "text": texts}
    variables = {name: ("top", np.asarray(one)) for name, one in named.items()}
    return xr.Dataset(variables, {"top": np.arange(len(order), dtype=np.int32)})


def _checked(
    array: xr.DataArray, count: int, transcripts: xr.Dataset | None
) -> tuple[xr.DataArray, xr.DataArray]:
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and d not in _DIMS])
    if set(array.dims) != set(_DIMS):
        raise InputError(
            f"highest was given an array over {array.dims}; it takes (prompt, token). Choose the "
            "rest with .sel(layer=…, trait=…)."
        )
    given = array if transcripts is None else transcripts
    if "token_text" not in given.coords or count < 1:
        raise InputError(
            f"highest was asked for {count} places of an array with the labels "
            f"{sorted(map(str, given.coords))}. Give 1 or more, and transcripts= where no "
            "token_text rides along."
        )
    return array.transpose(*_DIMS), given["token_text"].transpose(*_DIMS).sortby("token")


def _around(words: xr.DataArray, token: int, context: int) -> str:
    near = words.sel(token=slice(token - context, token + context))
    before, here, after = (
        "".join(near.values[mask].astype(str).tolist())
        for mask in (near.token < token, near.token == token, near.token > token)
    )
    return f"{before}[{here}]{after}"
