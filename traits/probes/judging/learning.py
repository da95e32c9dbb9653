"""What more labelled prompts would give: a probe fitted on fewer groups than there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of
from traits.probes.fit import fit
from traits.probes.fitting import splits
from traits.probes.fitting.asked import Traces, opened
from traits.probes.judging.report_rows import labelled, refuse_one_class
from traits.probes.scoring import score
from traits.statistics import cluster_bootstrap
from traits.statistics.ranks import label_auroc

SIZES = (0.2, 0.4, 0.6, 0.8, 1.0)


def learning_curve(
    traces: Traces,
    labels: xr.DataArray | str,
    *,
    train_sizes: Sequence[float | int] = SIZES,
    draws: int = 5,
    groups: str | None = "group",
    resamples: int = 1000,
    generator: np.random.Generator,
    **settings: Any,
) -> xr.Dataset:
    """The AUROC on "report" of probes fitted on some of the groups of "fit".

    Names are those of scikit-learn's `learning_curve`. `train_sizes` are numbers of groups, or
    shares of those in "fit" (numbers up to 1 that are no integers); of each there are `draws`
    probes. Within a draw the smaller sets lie in the larger ones, and both classes keep their
    share. Each probe chooses its layer, pooling and penalty on the whole part "select", which is
    not made smaller. `labels` (prompt) and `settings` are those of `traits.fit`, for one target.

    Returns over `train_size` (groups): `test_score` and `train_score` (train_size, draw), AUROCs
    on "report" and on the prompts fitted; `estimate`, the mean test score over draws, with `low`
    and `high`: 95 %, from whole groups of "report" drawn again, the same for all sizes (it leaves
    out what other "fit" prompts would give, of which the draws are a sign: they share prompts);
    `n_prompts` and the chosen `layer` (train_size, draw).

    Errors: those of `traits.fit`, and `ValueError` for sizes that are none, or more than there are.

    >>> draw = np.random.default_rng(0)
    >>> label = xr.DataArray(np.arange(80) % 2, dims="prompt")
    >>> traces = xr.DataArray(
    ...     draw.normal(size=(80, 1, 8)), dims=("prompt", "layer", "dim"),
    ...     coords={"prompt": [f"a/{n}" for n in range(80)], "layer": [3]},
    ... )
    >>> how = {"groups": None, "method": "mean_diff", "draws": 2, "resamples": 99}
    >>> curve = learning_curve(traces + label, label, train_sizes=[8, 40], generator=draw, **how)
    >>> curve["test_score"].sizes["train_size"], curve["train_size"].values.tolist()
    (2, [8, 40])
    """
    traces = opened(traces)
    whole = fit(traces, labels, groups=groups, generator=generator, **settings)
    settings = {
        name: value for name, value in settings.items() if name not in ("part", "fractions")
    }
    tokens = settings.get("tokens")
    part, names = whole["part"].values, splits.group_names(groups, traces)
    rows = labelled(score(whole, traces, tokens=tokens), labels, None)
    named = rows["label"].assign_coords(prompt=ids_of(rows))
    label = named.reindex(prompt=whole["prompt"].values).values
    order = [_order(names, label, part == "fit", generator) for _ in range(draws)]
    sizes = _sizes(train_sizes, len(order[0]))
    probes = np.empty((len(sizes), draws), object)
    for (at, draw), _ in np.ndenumerate(probes):
        probes[at, draw] = whole
        if sizes[at] < len(order[draw]):
            some = (part != "fit") | np.isin(names, order[draw][: sizes[at]])
            given = whole["part"].copy(data=np.where(some, part, ""))
            how: dict[str, Any] = {"groups": groups, "part": given, "generator": generator}
            probes[at, draw] = fit(traces, labels, **how, **settings)
    each = [score(one, traces, tokens=tokens).values for one in probes.ravel()]
    scores = np.stack(each, -1).reshape(len(label), *probes.shape).astype(float)
    return _judged(scores, probes, label, part, names, generator, resamples).assign_coords(
        train_size=sizes
    )


def _order(
    names: Shaped[np.ndarray, " prompt"],
    label: Float[np.ndarray, " prompt"],
    inside: Shaped[np.ndarray, " prompt"],
    generator: np.random.Generator,
) -> Shaped[np.ndarray, " group"]:
    """Groups in an order whose beginnings have their share of each class."""
    of = list(dict.fromkeys(names[inside].tolist()))
    mean = np.array([np.nanmean(label[inside & (names == name)]) for name in of])
    place = np.empty(len(of))
    for value in np.unique(mean):
        same = np.flatnonzero(mean == value)
        place[same] = (generator.permutation(len(same)) + generator.random()) / len(same)
    return np.array(of)[np.argsort(place, kind="stable")]


def _sizes(train_sizes: Sequence[float | int], count: int) -> Int[np.ndarray, " size"]:
    given = np.asarray(train_sizes)
    sizes = given if given.dtype.kind in "iu" else np.round(given * count)
    sizes = np.unique(sizes.astype(int))
    if not len(sizes) or sizes[0] < 1 or sizes[-1] > count:
        raise InputError(
            f"train_sizes={list(train_sizes)} were asked for, of the {count} groups in 'fit'. Give "
            "numbers of groups up to that, or shares from 0 to 1."
        )
    return sizes


def _judged(
    scores: np.ndarray,
    probes: np.ndarray,
    label: Float[np.ndarray, " prompt"],
    part: np.ndarray,
    names: np.ndarray,
    generator: np.random.Generator,
    resamples: int,
) -> xr.Dataset:
    known, dims = ~np.isnan(label), ("train_size", "draw")
    train, counts = np.empty(probes.shape), np.empty(probes.shape, int)
    for at, probe in np.ndenumerate(probes):
        own = known & (probe["part"].values == "fit")
        counts[at] = own.sum()
        train[at] = label_auroc(scores[own, *at], label[own])
    report = np.flatnonzero(known & (part == "report"))
    rows = xr.Dataset(
        {
            "score": (("prompt", *dims), scores[report]),
            "label": ("prompt", label[report]),
            "group": ("prompt", names[report]),
        }
    )
    refuse_one_class(rows)
    interval = cluster_bootstrap(
        rows, lambda some: _areas(some).mean("draw"), generator=generator, repetitions=resamples
    )
    layers = np.array([probe["layer"].item() for probe in probes.ravel()]).reshape(probes.shape)
    numbers = {"train_score": train, "n_prompts": counts, "layer": layers}
    return interval.assign({name: (dims, values) for name, values in numbers.items()}).assign(
        test_score=_areas(rows)
    )


def _areas(rows: xr.Dataset) -> xr.DataArray:
    label = rows["label"].values
    scores = np.moveaxis(rows["score"].values, 0, -1)
    both = 0 < label.sum() < len(label)
    area = label_auroc(scores, label) if both else np.full(scores.shape[:-1], np.nan)
    return xr.DataArray(area, dims=("train_size", "draw"))
