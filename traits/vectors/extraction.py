"""One trait's unit vector at every layer, by one method; what it refuses to fit."""

import re
from itertools import takewhile
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.errors import InputError
from tracekit.storage.provenance import read, stamp
from traits.vectors.methods import METHODS, Method, fitted
from traits.vectors.pairing import pairs, sides

_NAME = re.compile(r"[\w.-]*(/[\w.-]+)*")  # of a contrast set, with its category or without


def extract(
    traces: xr.DataArray, method: str | Method = "mean_diff", *, paired: bool = True
) -> xr.DataArray:
    """The unit vector of a trait at every layer, from the traces of a contrast set.

    `traces` has dims (prompt, layer, dim), and `token` if it should be averaged here (over the
    answer, as `reduce="mean"` does: labels 0 and up where every row has some, else all), with the
    coordinates `label` and `group`; the result has (layer, dim), float32, norm 1, with
    the coordinates `trait` and `extraction` (the method's name). `method` is a name of METHODS,
    whose vectors have the positive side positive, or any function of two sides, each (pair, layer,
    dim), to (layer, dim), which sees to that itself (`oriented`): nothing is turned here.
    `paired=False` is for statements without twins (`read_pairs` of statement and label): sides may
    have different numbers of rows. Raises ValueError for an unknown method, for one that needs
    twins where there are none, for sides that are the same at some layer (whatever a method would
    make of that), and for a vector of zeros.

    >>> rows = {"label": ("prompt", [1, 0]), "group": ("prompt", ["alignment/mine/0"] * 2)}
    >>> values = np.array([[[3.0, 4.0]], [[0.0, 0.0]]])
    >>> traces = xr.DataArray(values, dims=("prompt", "layer", "dim"), coords=rows)
    >>> extract(traces).values.round(2)
    array([[0.6, 0.8]], dtype=float32)
    """
    function = method if callable(method) else _method(method)
    name = getattr(method, "__name__", repr(method)) if callable(method) else method
    both = pairs(traces) if paired else _untwinned(traces, name)
    positive, negative = (side.transpose("pair", "layer", "dim") for side in both)
    if paired:
        refuse_identical(positive.values, negative.values)
    vector = unit(fitted(function, positive.values, negative.values))
    made = xr.DataArray(
        vector.astype(np.float32),
        dims=("layer", "dim"),
        coords={key: positive[key] for key in ("layer", "dim") if key in positive.coords},
    ).assign_coords(trait=trait_name(positive), extraction=name)
    counts = [side.sizes["pair"] for side in both]
    return _stamp(made, traces, {"pairs": counts[0]} if paired else {"statements": counts})


def unit(
    vectors: Float[np.ndarray, "*any dim"], *, zeros: bool = False
) -> Float[np.ndarray, "*any dim"]:
    """Vectors divided by their norm along the last axis; ValueError where one has no direction.

    That is where a norm is not finite or, unless `zeros` may stay zeros, zero.

    >>> unit(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    >>> unit(np.zeros((1, 2)), zeros=True).tolist()
    [[0.0, 0.0]]
    """
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    strange = np.argwhere(~np.isfinite(norm[..., 0])).tolist()
    if strange:
        raise InputError(
            f"{len(strange)} of {norm.size} directions are not finite (index along the leading "
            f"dims: {strange[:5]}). Leave them out, or mend what they were made of."
        )
    if zeros:
        norm = np.where(norm == 0, norm.dtype.type(1), norm)
    empty = np.argwhere(norm[..., 0] == 0).tolist()
    if empty:
        raise InputError(
            f"A direction has no length at {len(empty)} of {norm.size} places (index along "
            f"{'layer' if vectors.ndim == 2 else 'the leading dims'}: {empty[:5]}): both sides are "
            "the same there, for instance embeddings of identical last tokens. Drop that layer, "
            "or take other tokens."
        )
    return vectors / norm


def refuse_identical(
    positive: Float[np.ndarray, "pair *any dim"], negative: Float[np.ndarray, "pair *any dim"]
) -> None:
    """Raise ValueError where all twins are equal: a fit there would be the rounding of nothing.

    >>> refuse_identical(np.ones((8, 2, 3)), np.zeros((8, 2, 3)))
    """
    same = (positive == negative).all(axis=(0, -1))
    if same.any():
        raise InputError(
            f"Both sides of all {len(positive)} pairs are the same at {int(same.sum())} of "
            f"{same.size} places (index along the dims between pair and dim: "
            f"{np.argwhere(same).tolist()[:5]}), for instance embeddings of identical last "
            "tokens. Drop that layer, or take other tokens."
        )


def _untwinned(traces: xr.DataArray, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    if name == "first_component":
        raise InputError(
            "The method 'first_component' was asked for with paired=False; it is a component of "
            "the differences of twins. Use 'mean_diff', 'probe' or 'whitened'."
        )
    return sides(traces)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(
            f"The method {name!r} was asked for; there are {', '.join(METHODS)}. "
            "Give one of these, or a function (positive, negative) -> vector."
        )
    return METHODS[name]


def trait_name(positive: xr.DataArray) -> str:
    """The `category/trait` that all groups of one side of `pairs` begin with.

    Groups of other names, in which a "/" is a character as any (questions, addresses, dates), have
    what of their paths they share. Raises ValueError where they come from several contrast sets.

    >>> pair = np.array(["alignment/honesty/0", "alignment/honesty/1"])
    >>> trait_name(xr.DataArray(np.zeros(2), dims="pair", coords={"pair": pair}))
    'alignment/honesty'
    """
    parts = [str(name).rpartition("/") for name in positive["pair"].values]
    names = sorted({name for name, _, _ in parts})
    sets = all(_NAME.fullmatch(name) for name in names)
    alone = len(names) == len(parts) and not all(end.isdigit() for _, _, end in parts)
    if len(names) > 1 and sets and not alone:
        raise InputError(
            f"One trait at a time: the groups belong to {len(names)} contrast sets, "
            f"{', '.join(names[:4])}. Select one, extract each, and join with xr.concat; groups "
            "of your own that are not named <set>/<pair> do without the '/'."
        )
    paths = [name.split("/") for name in names]
    shared = takewhile(lambda both: both[0] == both[1], zip(min(paths), max(paths), strict=False))
    return "/".join(one for one, _ in shared)


def _stamp(vector: xr.DataArray, traces: xr.DataArray, counts: dict[str, Any]) -> xr.DataArray:
    made = {"trait": vector["trait"].item(), "method": vector["extraction"].item()}
    source = read(traces) if "provenance" in traces.attrs else None
    made |= {"made_by": "traits.extract", **counts, "source": source}
    return stamp(vector.rename("vector"), made)
