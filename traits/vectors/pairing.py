"""Contrast traces as two aligned sides, by token window, and the split of their pairs in parts."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool

from tracekit.errors import InputError

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
LARGEST = 1e100  # the fourth power of a larger one, as in a covariance, leaves double precision


def pairs(traces: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The positive and the negative side of contrast traces, aligned twin by twin.

    Takes any array over `prompt` with the coordinates `label` (1 or 0) and `group` (shared by
    twins); returns two arrays over `pair` (the group names, in order of appearance) and the
    remaining dims. Several rows of one side of a group (samples) are averaged, and so is a
    `token` dim, over the tokens that exist: those of the answer (labels 0 and up) where every row
    has some, else all. Sums are of 64 bits. A `template` coordinate stays with the pair. Raises
    ValueError for missing labels, a group with one side only, or rows without any value.

    >>> rows = {"label": ("prompt", [1, 0]), "group": ("prompt", ["a/0", "a/0"])}
    >>> traces = xr.DataArray([[3.0], [1.0]], dims=("prompt", "dim"), coords=rows)
    >>> positive, negative = pairs(traces)
    >>> dict((positive - negative).sizes), float((positive - negative).item())
    ({'pair': 1, 'dim': 1}, 2.0)
    """
    label, group = _labels(traces)
    traces = _means(traces)
    names = list(dict.fromkeys(group.tolist()))
    _check_sides(names, label, group)
    first = [int(np.flatnonzero(group == name)[0]) for name in names]
    positive, negative = (_side(traces, group, label == side, names) for side in (1, 0))
    if "template" in traces.coords:
        template = ("pair", traces["template"].values[first])
        positive, negative = (
            side.assign_coords(template=template) for side in (positive, negative)
        )
    _check_values(positive, negative)
    return positive, negative


def sides(traces: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The rows labelled 1 and those labelled 0, of statements that have no twins.

    As `pairs`, but each row stands by itself: the sides may have different numbers of them, over
    `pair`. Raises ValueError for missing labels, a side without rows, or rows without any value.

    >>> rows = {"label": ("prompt", [1, 0, 0]), "group": ("prompt", ["a/0", "a/1", "a/2"])}
    >>> traces = xr.DataArray([[3.0], [1.0], [2.0]], dims=("prompt", "dim"), coords=rows)
    >>> [side.sizes["pair"] for side in sides(traces)]
    [1, 2]
    """
    label, group = _labels(traces)
    traces = _means(traces)
    counts = [int((label == wanted).sum()) for wanted in (1, 0)]
    if 0 in counts:
        raise InputError(
            f"Statements of two labels are needed; {counts[0]} rows are labelled 1 and {counts[1]} "
            "are labelled 0. Capture both kinds."
        )
    both = [_rows_of(traces, group, label == wanted) for wanted in (1, 0)]
    for side in both:
        _check_values(side, side)
    return both[0], both[1]


def answer_tokens(traces: xr.DataArray) -> Bool[np.ndarray, " token"]:
    """Which tokens a text is read by: those labelled 0 and up where every row has some, else all.

    >>> traces = xr.DataArray([[9.0, 1.0], [9.0, 2.0]], {"token": [-1, 0]}, ("prompt", "token"))
    >>> answer_tokens(traces).tolist()
    [False, True]
    """
    every = np.ones(traces.sizes["token"], bool)
    answer = traces["token"].values >= 0 if "token" in traces.coords else every
    if answer.all() or not answer.any():
        return every
    if "token_id" in traces.coords:
        there = traces["token_id"] >= 0
    else:
        there = traces.notnull().any([dim for dim in traces.dims if dim not in ("prompt", "token")])
    return answer if bool(there.isel(token=answer).any("token").all()) else every


def _means(traces: xr.DataArray) -> xr.DataArray:
    if "token" in traces.dims:
        traces = _token_mean(traces.isel(token=np.flatnonzero(answer_tokens(traces))))
    return traces if traces.chunks is None else traces.compute()  # one pass over the files


def _token_mean(traces: xr.DataArray) -> xr.DataArray:
    mean = traces.mean("token", skipna=True, dtype=np.float64, keep_attrs=True)
    return mean.astype(np.result_type(traces.dtype, np.float16))  # of whole numbers a fraction


def _rows_of(traces: xr.DataArray, group: np.ndarray, wanted: np.ndarray) -> xr.DataArray:
    rows = traces.transpose("prompt", ...).isel(prompt=wanted)
    rows = rows.drop_vars([name for name, coord in rows.coords.items() if "prompt" in coord.dims])
    return rows.rename(prompt="pair").assign_coords(pair=group[wanted].astype(np.str_))


def _labels(traces: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    lacking = [name for name in ("label", "group") if name not in traces.coords]
    if lacking or "prompt" not in traces.dims:
        raise InputError(
            "Contrast traces need the dim 'prompt' and the coordinates 'label' and 'group'; "
            f"found dims {tuple(traces.dims)} and no {' or '.join(lacking) or 'prompt dim'}. "
            "Capture prompts made by ContrastSet.prompts()."
        )
    label = traces["label"].values
    other = sorted(set(np.unique(label).tolist()) - {0, 1})
    if other:
        raise InputError(
            f"The coordinate 'label' must be 1 (positive) or 0 (negative), and has {other[:5]}. "
            "Select the rows of one contrast set."
        )
    return label, traces["group"].values


def _check_sides(names: Sequence[Hashable], label: np.ndarray, group: np.ndarray) -> None:
    if not names:
        raise InputError("Contrast traces without a row were given. Capture both sides of a pair.")
    sides = [set(group[label == side].tolist()) for side in (1, 0)]
    single = [name for name in names if not (name in sides[0] and name in sides[1])]
    if single:
        raise InputError(
            f"Twins are matched by 'group', and {len(single)} of {len(names)} groups have one "
            f"side only (first: {single[0]!r}). Capture both sides, or drop these groups "
            "(statements that have no twins: extract(…, paired=False))."
        )


def _side(
    traces: xr.DataArray, group: np.ndarray, wanted: np.ndarray, names: Sequence[Hashable]
) -> xr.DataArray:
    place = {name: index for index, name in enumerate(names)}
    rows = np.flatnonzero(wanted)
    pair = np.array([place[name] for name in group[rows].tolist()])
    order = np.argsort(pair, kind="stable")
    side = traces.transpose("prompt", ...).isel(prompt=rows[order])
    side = side.drop_vars([name for name, coord in side.coords.items() if "prompt" in coord.dims])
    if len(rows) > len(names):
        starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
        counts = np.bincount(pair).reshape(-1, *[1] * (side.ndim - 1))
        means = np.add.reduceat(side.values, starts, dtype=np.float64) / counts
        means = means.astype(np.result_type(side.dtype, np.float16))
        side = side.isel(prompt=starts).copy(data=means)
    return side.rename(prompt="pair").assign_coords(pair=np.asarray(names))


def _check_values(positive: xr.DataArray, negative: xr.DataArray) -> None:
    hole = np.zeros(positive.sizes["pair"], bool)
    for side in (positive, negative):
        good = np.isfinite(side.values)
        if side.dtype == np.float64:
            good &= np.abs(side.values) < LARGEST
        hole |= ~good.reshape(side.sizes["pair"], -1).all(axis=1)
    if hole.any():
        raise InputError(
            f"{hole.sum()} of {hole.size} pairs have values that are not finite, or beyond "
            f"{LARGEST:.0e} (first: {positive['pair'].values[hole][0]!r}): an empty response or an "
            "overflow. Drop these groups, or select tokens that every response has."
        )


def windowed_pairs(
    traces: xr.DataArray, windows: Mapping[str, slice] | None = None
) -> tuple[xr.DataArray, xr.DataArray]:
    """Both sides of contrast traces over (pair, window, layer, dim), each window a mean.

    `windows` maps a name to a slice of token labels; None takes the `window` dim that the traces
    have, or else makes one window "all", of the tokens that `pairs` averages.

    >>> rows = {"label": ("prompt", [1, 0]), "group": ("prompt", ["a/0", "a/0"])}
    >>> traces = xr.DataArray(np.ones((2, 3, 4)), dims=("prompt", "layer", "dim"), coords=rows)
    >>> windowed_pairs(traces)[0].sizes["window"]
    1
    """
    if windows is not None and "token" not in traces.dims:
        raise InputError(
            f"Token windows {list(windows)} were asked for, and the traces have dims "
            f"{tuple(traces.dims)}. Capture without reduce, or leave windows out."
        )
    order = ("pair", "window", "layer", "dim")
    if windows is None and "window" in traces.dims:
        positive, negative = pairs(traces)
        return positive.transpose(*order), negative.transpose(*order)
    named = (windows or {}).values()
    cuts = [_token_mean(traces.sel(token=cut)) for cut in named] or [traces]
    sides = zip(*[pairs(cut) for cut in cuts], strict=True)
    positive, negative = (joined(side, "window", windows or ["all"]) for side in sides)
    return positive.transpose(*order), negative.transpose(*order)


def joined(arrays: Iterable[Labelled], dim: str, names: Iterable[str]) -> Labelled:
    """Arrays of the same labels, joined along a new dim whose coordinate is `names`.

    >>> joined([xr.DataArray(1.0), xr.DataArray(2.0)], "trait", ["a", "b"]).sizes["trait"]
    2
    """
    # a pandas index of strings would become a type that netCDF files cannot hold
    index = xr.DataArray(np.array(list(names)), dims=dim, name=dim)
    return xr.concat(list(arrays), index, join="exact", combine_attrs="drop")


def split_pairs(
    pair: xr.DataArray,
    *,
    generator: np.random.Generator,
    fractions: Mapping[str, float] = MappingProxyType({"fit": 0.5, "select": 0.2, "report": 0.3}),
    minimum: int = 8,
) -> xr.DataArray:
    """The part that each pair belongs to: a random split by pair, and whole templates together.

    `pair` is the coordinate of one side of `pairs`; with a `template` coordinate, pairs of one
    template stay in one part. Returns part names over `pair`. Raises ValueError when a part
    would have fewer than `minimum` pairs.

    >>> pair = xr.DataArray(np.arange(40), dims="pair", coords={"pair": np.arange(40)})
    >>> part = split_pairs(pair["pair"], generator=np.random.default_rng(0))
    >>> int((part == "fit").sum()), int((part == "select").sum()), int((part == "report").sum())
    (20, 8, 12)
    """
    units = pair["template"].values if "template" in pair.coords else np.arange(pair.size)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    names, wanted = list(fractions), np.array(list(fractions.values()))
    room = wanted / wanted.sum() * pair.size
    chosen = np.empty(len(sizes), int)
    for index in order:
        chosen[index] = np.argmax(room)
        room[chosen[index]] -= sizes[index]
    part = pair.copy(data=np.array(names)[chosen[unit]]).rename("part")
    _check_parts(part, names, len(sizes), minimum)
    return part


def select_part(traces: xr.DataArray, part: xr.DataArray, name: str) -> xr.DataArray:
    """The rows of contrast traces whose pair is in one part of a split.

    >>> rows = {"group": ("prompt", ["a/0", "a/1"])}
    >>> traces = xr.DataArray([1.0, 2.0], dims="prompt", coords=rows)
    >>> part = xr.DataArray(["fit", "report"], dims="pair", coords={"pair": ["a/0", "a/1"]})
    >>> select_part(traces, part, "report").values
    array([2.])
    """
    return traces.isel(prompt=np.isin(traces["group"].values, part["pair"].values[part == name]))


def refuse_known(
    sides: tuple[xr.DataArray, xr.DataArray],
    found: tuple[xr.DataArray, xr.DataArray],
    part: xr.DataArray,
) -> None:
    """Refuse to report on pairs (both sides of `found`) that fitted or selected (`sides`, `part`).

    A pair is known by its values, whatever its name is, and by its name, unless both have the same
    windows and other values: two texts of one name. Raises ValueError with the number known.

    >>> one = xr.DataArray([[1.0], [2.0]], {"pair": ["a/0", "a/1"]}, ("pair", "dim"))
    >>> part = xr.DataArray(["fit", "report"], {"pair": ["a/0", "a/1"]}, "pair")
    >>> refuse_known((one, -one), (one[1:], -one[1:]), part)
    """
    used = [side.sel(pair=part["pair"].values[(part != "report").values]) for side in sides]
    names = {name: row for row, name in enumerate(used[0]["pair"].values.tolist())}
    ours, theirs = (np.stack([side.values for side in both], 1) for both in (used, found))
    values = {pair.tobytes() for pair in ours.astype(theirs.dtype)}
    again = [
        name
        for name, pair in zip(found[0]["pair"].values.tolist(), theirs, strict=True)
        if pair.tobytes() in values
        or (name in names and (pair.shape != ours.shape[1:] or _alike(pair, ours[names[name]])))
    ]
    if again:
        raise InputError(
            f"{len(again)} of {len(theirs)} pairs given as report= are among those that fitted or "
            f"selected the vectors (first: {again[0]!r}): what is reported on them is no evidence. "
            "Give pairs of other texts (under other names), or leave report out for the part."
        )


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """The same texts, captured in batches of other shapes or in 16 bits."""
    return bool(np.abs(one - other).mean() <= 1e-2 * np.abs(other - other.mean()).mean())


def _check_parts(part: xr.DataArray, names: Sequence[str], units: int, minimum: int) -> None:
    counts = {name: int((part == name).sum()) for name in names}
    if min(counts.values()) < minimum:
        raise InputError(
            f"A split into {', '.join(names)} was asked for, each of at least {minimum} pairs; "
            f"{part.size} pairs in {units} separable units give {counts}. Write more pairs."
        )
