"""What the arms do, as functions of labelled arrays: shifts, trajectories, rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.settings.groups import MEAN
from traits.statistics import cluster_bootstrap

LABELS = ("group", "bias", "exploit")
LEAST = 2  # responses of each kind that a bias needs before it says anything


def response_mean(projections: xr.DataArray) -> xr.DataArray:
    """The mean over the response's tokens (labels 0 and up): (prompt, layer, trait).

    >>> shape, token = ("prompt", "token", "layer", "trait"), [-1, 0, 1]
    >>> response_mean(xr.DataArray(np.ones((2, 3, 4, 1)), {"token": token}, shape)).dims
    ('prompt', 'layer', 'trait')
    """
    responses = projections.sel(token=slice(0, None))
    return responses.mean("token", skipna=True, keep_attrs=True)


def response_score(projections: xr.DataArray, pooling: str = MEAN) -> xr.DataArray:
    """A response's score from the scores of its tokens: their mean, or pooled otherwise.

    >>> shape, token = ("prompt", "token", "layer", "trait"), [-1, 0, 1]
    >>> projections = xr.DataArray(np.arange(3.0).reshape(1, 3, 1, 1), {"token": token}, shape)
    >>> response_score(projections, "max").item()
    2.0
    """
    if pooling == MEAN:
        return response_mean(projections)
    return tk.pool(projections, pooling)


def means_of(rows: xr.Dataset, weights: str = "") -> xr.DataArray:
    """The response means of `rows` (`gather.gathered`), whatever their scores are pooled by.

    >>> means_of(xr.Dataset({"clean_score": 1.0}), "clean_").item()
    1.0
    """
    return rows[f"{weights}mean" if f"{weights}mean" in rows else f"{weights}score"]


def shift(
    arm: xr.DataArray, clean: xr.DataArray, generator: np.random.Generator, repetitions: int
) -> xr.Dataset:
    """How far other weights move the response means on identical ids, with an interval.

    Both are `response_mean`s; the result has `prompt_shift` (prompt, layer, trait) and, over
    (layer, trait), `shift_mean`, `shift_low`, `shift_high`, 95 % from a bootstrap over prompts
    (`group`); of one prompt there is no interval, and its bounds are NaN.
    Errors: `ValueError` for arms that may not be compared (`tk.difference`).

    >>> means = [response_mean(traits.project(one, vectors)) for one in (traces, clean)]
    >>> shift(*means, np.random.default_rng(0), 99)["shift_mean"].dims
    ('layer', 'trait')
    """
    moved = tk.difference(arm, clean)
    rows = bare(moved).assign_coords(group=("prompt", moved["group"].values))
    if len(np.unique(moved["group"].values)) < 2:
        mean = rows.mean("prompt")
        none = xr.full_like(mean, np.nan)
        intervals = xr.Dataset({"estimate": mean, "low": none, "high": none})
    else:
        intervals = cluster_bootstrap(rows, "mean", generator=generator, repetitions=repetitions)
    shifts = intervals.rename(estimate="shift_mean", low="shift_low", high="shift_high")
    shifts["n"] = xr.DataArray(len(np.unique(moved["group"].values)))
    shifts["prompt_shift"] = bare(moved, keep=("prompt", "layer", "trait", *LABELS))
    return shifts.drop_attrs()


def deviation(clean: xr.DataArray) -> xr.DataArray:
    """The spread over responses of response means (prompt, layer, trait): (layer, trait).

    NaN where there is none: one response, or all of them alike.

    >>> means = xr.DataArray([[[1.0]], [[3.0]]], dims=("prompt", "layer", "trait"))
    >>> deviation(means).values.round(2).tolist()
    [[1.41]]
    """
    rows = bare(clean)
    if rows.sizes["prompt"] < 2:
        return xr.full_like(rows.isel(prompt=0, drop=True), np.nan)
    spread = rows.std("prompt", ddof=1)
    return spread.where(spread > 0)


def decidable(bias: Sequence[str], exploit: np.ndarray) -> dict[str, str]:
    """For each bias the reason why its responses cannot be told apart; empty where they can.

    A bias needs labels, and at least two responses that exploit it and two that do not.

    >>> decidable(["water"] * 4, np.array([1, 0, 0, 1]))
    {'water': ''}
    """
    reasons = {}
    for name in dict.fromkeys(bias):
        rows = exploit[np.asarray(bias) == name]
        hits, rest = int((rows == 1).sum()), int((rows == 0).sum())
        if not hits + rest:
            reasons[name] = "no detector"
        elif min(hits, rest) < LEAST:
            reasons[name] = f"{hits} of {hits + rest} exploit"
        else:
            reasons[name] = ""
    return reasons


def trajectories(projections: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """The mean over prompts at each response token, by arm: (arm, token, layer, trait).

    With its standard error and the number of prompts that reach the token. Responses to one prompt
    (`group`, where it is there) are averaged first: they are not units.

    >>> shape, token = ("prompt", "token", "layer", "trait"), [-1, 0, 1]
    >>> projections = xr.DataArray(np.ones((2, 3, 4, 1)), {"token": token}, shape)
    >>> trajectories({"organism/organism": projections})["mean"].dims
    ('arm', 'token', 'layer', 'trait')
    """
    arms = []
    for array in projections.values():
        values = bare(array.sel(token=slice(0, None)), keep=("prompt", "token", "layer", "trait"))
        if "group" in array.coords:
            groups = values.assign_coords(group=("prompt", array["group"].values)).groupby("group")
            values = groups.mean("prompt").rename(group="prompt")
        count = values.notnull().isel(layer=0, trait=0, drop=True).sum("prompt")
        # one prompt has no spread
        many = values.sizes["prompt"] > 1
        spread = values.std("prompt", ddof=1) if many else xr.full_like(count, np.nan, float)
        error = (spread / np.sqrt(count) + 0 * values.mean("prompt")).where(count > 1)
        arms.append(xr.Dataset({"mean": values.mean("prompt"), "error": error, "count": count}))
    # arms on other texts reach other tokens: there the count is 0
    whole = xr.concat(arms, xr.Variable("arm", list(projections)), join="outer")
    return whole.assign(count=whole["count"].fillna(0).astype(np.int32))


def marked_share(projections: xr.DataArray) -> xr.DataArray:
    """The share of responses that exploit at each response token: (token).

    >>> shape, marks = ("prompt", "token"), [[False, True, False]] * 2
    >>> coords = {"token": [-1, 0, 1], "exploit_span": (shape, marks)}
    >>> marked_share(xr.DataArray(np.ones((2, 3)), coords, shape)).values.tolist()
    [1.0, 0.0]
    """
    marked = projections["exploit_span"].sel(token=slice(0, None)).astype(float)
    return bare(marked.mean("prompt"), keep=("token",))


def rates(exploit: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """How many responses of each arm exploit: `hits` and `responses` over (arm, bias).

    Only biases with a detector count as responses; `exploit` carries the coordinate `bias`.

    >>> exploit = xr.DataArray([1, 0], {"bias": ("prompt", ["water", "water"])}, "prompt")
    >>> rates({"clean": exploit})["hits"].values.tolist()
    [[1]]
    """
    names = list(dict.fromkeys(str(b) for array in exploit.values() for b in biases(array)))
    counts = np.zeros((2, len(exploit), len(names)), np.int32)
    for row, array in enumerate(exploit.values()):
        for column, name in enumerate(names):
            values = array.values[np.asarray(biases(array)) == name]
            counts[:, row, column] = (values == 1).sum(), (values >= 0).sum()
    coords = {"arm": list(exploit), "bias": np.asarray(names, np.str_)}
    dims = ("arm", "bias")
    return xr.Dataset({"hits": (dims, counts[0]), "responses": (dims, counts[1])}, coords)


def biases(array: xr.DataArray) -> list[str]:
    """The bias of each row; empty where the prompts name none.

    >>> biases(xr.DataArray([0.1, 0.2], {"bias": ("prompt", ["water", "water"])}, "prompt"))
    ['water', 'water']
    """
    values = array["bias"].values if "bias" in array.coords else [""] * array.sizes["prompt"]
    return [str(value) for value in values]


def bare(array: xr.DataArray, keep: tuple[str, ...] = ("prompt", "layer", "trait")) -> xr.DataArray:
    """Without the labels that a bootstrap would carry along at every draw.

    >>> coords = {"prompt": ["a", "b"], "bias": ("prompt", ["water", "water"])}
    >>> list(bare(xr.DataArray([0.1, 0.2], coords, "prompt")).coords)
    ['prompt']
    """
    return array.drop_vars([name for name in array.coords if name not in keep]).drop_attrs()
