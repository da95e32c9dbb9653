"""Random directions in a probe's place, from the covariance of the rows that it was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from traits.probes import record
from traits.probes.fitting import choosing
from traits.probes.fitting.asked import Asked
from traits.probes.fitting.choosing import Candidates
from traits.probes.fitting.labels import Labels
from traits.probes.fitting.method_table import Parameters
from traits.probes.fitting.rows import Source, means, tokens_of
from traits.probes.record import Probe
from traits.vectors.nulls import random_directions

MOST = 4096  # tokens of which a covariance is taken

Drawn = tuple[np.ndarray, list[list[list[Parameters]]], Candidates]


def directions(
    probe: xr.Dataset, asked: Asked, held: Source, truth: Labels, part: np.ndarray
) -> Callable[[int], Drawn]:
    """A function of a number of draws to their AUROCs on "select", and the directions as probes.

    A draw is one set of weights of the rows of "fit" for all layers. Targets share it, each
    turned to its own positive side; scores are as wide on "fit" as the probe's.
    """
    fit, select = (np.flatnonzero(part == name) for name in ("fit", "select"))
    candidates = Candidates(asked.candidates.layers, asked.candidates.poolings, [np.nan])
    widths = _widths(record.read(probe), held, fit)
    kept = _some_tokens(held, fit, asked.generator) if asked.kind == "tokens" else None
    targets = np.arange(truth.prompt.shape[1])

    def draw(count: int) -> Drawn:
        seeds = asked.generator.integers(2**31, size=len(widths)).tolist()
        labels, area, probes = truth.columns(np.tile(targets, count)), [], []
        for layer in candidates.layers:
            rows = means(held, layer, fit) if kept is None else tokens_of(held, layer, fit, kept)
            drawn = [_drawn(rows, count, seed) for seed in seeds]
            one = _as_wide(dict(zip(widths, drawn, strict=True)), widths, held, layer, fit)
            probes.append(_turned(one, held, layer, labels, fit, candidates))
            area.append(_areas(held, layer, probes[-1], candidates, labels, select))
        return np.stack(area, 1), probes, candidates

    return draw


def _widths(
    probe: Probe, held: Source, fit: Int[np.ndarray, row]
) -> dict[str, Float[np.ndarray, target]]:
    """How wide the tokens' scores are for each target, and the logits of attention."""
    widths: dict[str, list[float]] = {}
    for target, layer in enumerate(probe.layers):
        one = {name: values[target] for name, values in probe.parameters.items()}
        scores = choosing.token_scores(held, layer, [[one]], fit)
        for name, values in zip(("weight", "query"), scores, strict=True):
            if values is not None:
                widths.setdefault(name, []).append(float(np.nanstd(values)))
    return {name: np.array(each) for name, each in widths.items()}


def _some_tokens(
    held: Source, fit: Int[np.ndarray, row], generator: np.random.Generator
) -> Bool[np.ndarray, "prompt token"]:
    """At most `MOST` tokens of the rows of "fit", as a mask of all tokens."""
    row, token = np.nonzero(held.real[fit])
    chosen = generator.permutation(len(row))[:MOST]
    kept = np.zeros_like(held.real)
    kept[fit[row[chosen]], token[chosen]] = True
    return kept


def _drawn(
    rows: Float[np.ndarray, "row dim"], count: int, seed: int
) -> Float[np.ndarray, "draw dim"]:
    """The same weights of the rows at every layer, by the seed."""
    like = xr.DataArray(np.ones(rows.shape[1]), dims="dim")
    covariance = xr.DataArray(rows, dims=("prompt", "dim"))
    return random_directions(like, count, covariance=covariance, seed=seed).values


def _as_wide(
    drawn: Mapping[str, Float[np.ndarray, "draw dim"]],
    widths: Mapping[str, Float[np.ndarray, target]],
    held: Source,
    layer: int,
    fit: Int[np.ndarray, row],
) -> list[Parameters]:
    """A probe a draw and target, in this order, as wide on "fit" as the target's own."""
    bare = [dict(zip(drawn, one, strict=True)) for one in zip(*drawn.values(), strict=True)]
    offset = {"offset": np.zeros(())}
    scores = choosing.token_scores(held, layer, [[one | offset] for one in bare], fit)
    own = {
        name: np.nanstd(values, axis=(1, 2, 3))
        for name, values in zip(("weight", "query"), scores, strict=True)
        if values is not None
    }
    return [
        {name: one[name] * (widths[name][target] / (own[name][n] or 1.0)) for name in one} | offset
        for n, one in enumerate(bare)
        for target in range(len(widths["weight"]))
    ]


def _turned(
    probes: list[Parameters],
    held: Source,
    layer: int,
    labels: Labels,
    fit: Int[np.ndarray, row],
    candidates: Candidates,
) -> list[list[Parameters]]:
    """The probes, each on the side on which "fit" is positive by the first pooling."""
    alone = [[one] for one in probes]
    area = choosing.areas(held, layer, alone, candidates.poolings[:1], labels, fit)[:, 0, 0]
    sides = np.where(area < 0.5, -1.0, 1.0)
    both = zip(probes, sides, strict=True)
    return [[{**one, "weight": one["weight"] * side}] for one, side in both]


def _areas(
    held: Source,
    layer: int,
    probes: list[list[Parameters]],
    candidates: Candidates,
    labels: Labels,
    select: Int[np.ndarray, row],
) -> Float[np.ndarray, "target pooling penalty"]:
    if candidates.number == 1:
        return np.full((len(probes), 1, 1), np.nan)
    return choosing.areas(held, layer, probes, candidates.poolings, labels, select)
