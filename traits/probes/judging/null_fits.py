"""What a probe would reach by chance: fits of shuffled labels, random directions, chosen alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.pooling import Pooling
from tracekit.transcripts.selection import Tokens
from traits.probes import record
from traits.probes.fit import fitted
from traits.probes.fitting import choosing, splits
from traits.probes.fitting.asked import Asked, Traces, opened, with_layers
from traits.probes.fitting.choosing import Candidates
from traits.probes.fitting.labels import Labels, matched
from traits.probes.fitting.linear import Function
from traits.probes.fitting.method_table import METHODS, Parameters
from traits.probes.fitting.rows import Source, source
from traits.probes.judging.null_directions import directions

NULLS = ("shuffled labels", "covariance-matched")
AT_ONCE = 25  # draws whose probes of every layer are in memory
Areas = Float[np.ndarray, "target layer pooling penalty"]
# every candidate's AUROC on "select", and the candidates: by layer, target and penalty
Drawn = tuple[Areas, list[list[list[Parameters]]], Candidates]


def probe_nulls(
    probe: xr.Dataset,
    traces: Traces,
    labels: xr.DataArray | str | Sequence[str],
    *,
    nulls: Sequence[str] = NULLS,
    method: str | Function | None = None,
    tokens: Tokens | None = None,
    groups: str | xr.DataArray | None = "group",
    draws: int = 100,
    generator: np.random.Generator,
) -> xr.DataArray:
    """AUROCs on "report" of what knows nothing of the labels, chosen as the probe was.

    `traces` and `labels` are those that `traits.fit` was given; parts, layers, poolings,
    penalties, rows and class weights are the probe's own. Each draw goes through the same choice:
    of all candidates the one with the highest AUROC on "select" (true labels), judged on "report".

    | null | is |
    | --- | --- |
    | "shuffled labels" | the method, refitted on the labels of "fit" in another order: those of \
whole `groups` exchanged, and turned round within each, so that rows of a group stay together |
    | "covariance-matched" | one random direction a draw from the covariance of the rows of "fit" \
(`traits.random_directions`), turned to the positive side of "fit"; its scores are as wide as the \
probe's, and of an attention probe the query is one too |

    `method` is needed where the probe's was a function, and `tokens` where they were a mask.
    Returns (null, draw), or (null, draw, target), with the chosen `layer` and `pooling` as
    coordinates: what `traits.evaluate_probe(nulls=…)` takes. A shuffled draw costs one solution of
    each candidate: 100 of 21 layers, 576 dims and 300 prompts take a minute or two on a core by
    "logistic"; of attention and MLP probes give fewer.

    Errors: `ValueError` for traces or labels that are not the probe's, and a part "report"
    without both classes.

    >>> draw = np.random.default_rng(0)
    >>> traces = xr.DataArray(
    ...     draw.normal(size=(60, 2, 8)), dims=("prompt", "layer", "dim"),
    ...     coords={"prompt": [f"a/{n}" for n in range(60)], "layer": [3, 4]},
    ... )
    >>> label = xr.DataArray(np.arange(60) % 2, dims="prompt")
    >>> fitted = traits.fit(traces + label, label, groups=None)
    >>> null = probe_nulls(fitted, traces + label, label, groups=None, draws=5, generator=draw)
    >>> null.sizes["null"], null.sizes["draw"]
    (2, 5)
    """
    read = record.read(probe)
    asked = _asked(probe, read.method if method is None else method, generator)
    traces = with_layers(opened(traces), asked.candidates.layers)
    held = source(traces, record.tokens_of(read.tokens) if tokens is None else tokens)
    truth = matched(labels, held, read.targets)
    part = _part(probe, held, truth)
    names = splits.group_names(groups, held.traces)
    ways: dict[str, Callable[[int], Drawn]] = {
        NULLS[0]: lambda count: _shuffled(asked, held, truth, part, names, count),
        NULLS[1]: directions(probe, asked, held, truth, part),
    }
    unknown = [name for name in nulls if name not in ways]
    if unknown or not nulls or draws < 1:
        raise InputError(
            f"The nulls {list(nulls)} were asked for in {draws} draws; there are "
            f"{', '.join(NULLS)}, and at least one draw."
        )
    report = np.flatnonzero(part == "report")
    each = [_judged(ways[name], held, truth, report, draws) for name in nulls]
    made = xr.concat(each, xr.Variable("null", np.array(list(nulls))))
    return made if truth.targets is not None else made.isel(target=0, drop=True)


def exchanged(
    names: Shaped[np.ndarray, row], generator: np.random.Generator
) -> Int[np.ndarray, row]:
    """Rows in another order: whole groups in each other's place, each turned round by a random
    number of its rows.

    Groups of one size take each other's place exactly; a group that is larger takes up several.

    >>> exchanged(np.array(["a", "a", "b", "b"]), np.random.default_rng(1)).tolist()
    [3, 2, 0, 1]
    """
    _, unit = np.unique(names, return_inverse=True)
    places = np.argsort(unit, kind="stable")
    blocks = np.split(places, np.cumsum(np.bincount(unit))[:-1])
    turned = [np.roll(block, int(generator.integers(len(block)))) for block in blocks]
    order = np.empty(len(names), int)
    order[places] = np.concatenate([turned[n] for n in generator.permutation(len(blocks))])
    return order


def _asked(probe: xr.Dataset, method: str | Function, generator: np.random.Generator) -> Asked:
    if isinstance(method, str) and method not in METHODS:
        raise InputError(
            f"The probe was fitted by {method!r}, which is none of {', '.join(METHODS)}. Give the "
            "function as method=."
        )
    columns = (probe[f"candidate_{name}"].values for name in ("layer", "pooling"))
    layers, poolings = (list(dict.fromkeys(column.tolist())) for column in columns)
    penalties = np.unique(probe["candidate_inverse_penalty"].values).tolist()
    candidates = Candidates(layers, [Pooling.read(text) for text in poolings], penalties)
    balanced = probe.attrs["class_weight"] == "balanced"
    return Asked(method, candidates, probe.attrs["rows"], balanced, generator)


def _part(probe: xr.Dataset, held: Source, truth: Labels) -> np.ndarray:
    known, names = ids_of(probe["part"]), held.prompts.astype(np.str_)
    lacking = set(names.tolist()) ^ set(known)
    if lacking:
        raise InputError(
            f"The probe was fitted, chosen and left to report on {len(known)} prompts, and the "
            f"traces have {len(held.prompts)}; {len(lacking)} are only in one of both (first: "
            f"{sorted(map(str, lacking))[0]!r}). Give the traces that it was fitted on."
        )
    part = probe["part"].assign_coords(prompt=known).sel(prompt=names).values
    splits.require_classes(truth.classes, part, truth.targets, {"report": 1})
    return part


def _shuffled(
    asked: Asked, held: Source, truth: Labels, part: np.ndarray, names: np.ndarray, count: int
) -> Drawn:
    draws = [_relabelled(truth, part, names, asked.generator) for _ in range(count)]
    token = None
    if truth.token is not None:
        token = np.concatenate([one.token for one in draws if one.token is not None], -1)
    prompt = np.concatenate([one.prompt for one in draws], -1)
    several = replace(truth, prompt=prompt, token=token, targets=None)
    area, probes = fitted(asked, held, several, part)
    return area, probes, asked.candidates


def _relabelled(
    truth: Labels, part: np.ndarray, names: np.ndarray, generator: np.random.Generator
) -> Labels:
    """Labels of which those of the part "fit" are exchanged between its groups."""
    rows = np.flatnonzero(part == "fit")
    prompt = truth.prompt.copy()
    if truth.token is None:
        prompt[rows] = prompt[rows[exchanged(names[rows], generator)]]
        return replace(truth, prompt=prompt)
    token = truth.token.copy()
    for column in range(token.shape[-1]):
        row, place = np.nonzero(~np.isnan(token[rows, :, column]))
        order = exchanged(names[rows[row]], generator)
        token[rows[row], place, column] = token[rows[row], place, column][order]
    some = np.isnan(token[rows]).all(1)
    prompt[rows] = np.where(some, np.nan, np.nan_to_num(token[rows], nan=0.0).max(1))
    return replace(truth, prompt=prompt, token=token)


def _judged(
    draw: Callable[[int], Drawn],
    held: Source,
    truth: Labels,
    report: Int[np.ndarray, row],
    draws: int,
) -> xr.DataArray:
    """The report's AUROC of each draw's choice: (draw, target)."""
    targets = truth.prompt.shape[1]
    batches = [
        one
        for first in range(0, draws, AT_ONCE)
        for one in _chosen(*draw(min(AT_ONCE, draws - first)), targets)
    ]
    value = np.empty((draws, targets))
    layers = np.array([[place[0] for place in places] for _, places in batches])
    poolings = np.array([str(pooling) for pooling, _ in batches])
    for layer in np.unique(layers):
        for pooling in np.unique(poolings):
            at = np.argwhere((layers == layer) & (poolings == pooling)[:, None])
            if len(at):
                probes = [[batches[d][1][t][1]] for d, t in at]
                some = truth.columns(at[:, 1])
                way = [Pooling.read(str(pooling))]
                found = choosing.areas(held, int(layer), probes, way, some, report)
                value[at[:, 0], at[:, 1]] = found[:, 0, 0]
    names = range(targets) if truth.targets is None else list(truth.targets)
    coords: dict[str, Any] = {"target": list(names), "pooling": ("draw", poolings)}
    coords["layer"] = (("draw", "target"), layers.astype(np.int32))
    return xr.DataArray(value, coords, ("draw", "target"), name="auroc")


def _chosen(
    area: Areas, probes: list[list[list[Parameters]]], candidates: Candidates, targets: int
) -> Iterator[tuple[Pooling, list[tuple[int, Parameters]]]]:
    """Of each draw its pooling, and each target's layer and parameters."""
    for first in range(0, len(area), targets):
        pooling, places = choosing.best(area[first : first + targets], candidates)
        yield (
            pooling,
            [
                (candidates.layers[layer], probes[layer][first + target][penalty])
                for target, (layer, penalty) in enumerate(places)
            ],
        )
