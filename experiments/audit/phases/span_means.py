"""Mean unit residuals of stretches of answers: at exploit spans, and at their matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import gather
from experiments.audit.evidence.spans import Match, Stretch, by_match
from experiments.audit.phases.arms import ARMS
from experiments.audit.run import Run
from tracekit import Model
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of

Matched = Mapping[str, Sequence[Match]]


def unit_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over tokens of residuals scaled to length one: (token, dim) to (dim,).

    Its dot product with a unit vector is the mean cosine of the response with that vector.

    >>> unit_mean(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000])
    """
    return (values / values.norm(dim=-1, keepdim=True)).mean(0)


def matched(folder: Path, runs: xr.Dataset) -> Matched:
    """The matches of the organism's answers, by the clean weights' likelihoods of this run."""
    path = Run(folder).measured("logprob", ARMS[0])
    logprob = tk.open(path) if path.is_file() else None
    return by_match(gather.answers_of(folder, "organism", runs, logprob))


def marked(runs: xr.Dataset, matched: Matched) -> xr.DataArray | None:
    """Spans and matches in their rows: (prompt, stretch, token); None where there is none."""
    places = _places(matched)
    if not places:
        return None
    most = max(map(len, places.values()))
    marks = np.zeros((runs.sizes["prompt"], most, runs.sizes["token"]), bool)
    for row, stretches in places.items():
        for part, (start, stop) in enumerate(stretches):
            marks[row, part, start:stop] = True
    labels = {"prompt": ids_of(runs), "stretch": range(most), "token": runs["token"].values}
    return xr.DataArray(marks, labels, ("prompt", "stretch", "token"))


def at(model: Model, runs: xr.Dataset, marks: xr.DataArray) -> xr.DataArray:
    """Their mean unit residuals, by a forward of the rows that have any."""
    some = marks.any(("stretch", "token")).values.nonzero()[0]
    return tk.capture(model, runs.isel(prompt=some), tokens=marks, reduce=unit_mean)


def contrasts(means: xr.DataArray, runs: xr.Dataset, matched: Matched) -> xr.DataArray:
    """Mean unit residuals at spans minus at their matches: (match, prompt, layer, dim).

    `means` are those of the parts that `marked` gives. Of the answers that have a match, NaN where
    one has none of that kind. The dot product with a unit vector is what `spans.span_means` makes
    of cosines.
    """
    ids, places = ids_of(runs), _places(matched)
    there = {name: n for n, name in enumerate(ids_of(means))}
    values = means.transpose("prompt", "stretch", "layer", "dim").values

    def mean(row: int, stretch: Stretch) -> np.ndarray:
        return values[there[ids[row]], places[row].index(stretch)]

    rows = sorted({one.row for pairs in matched.values() for one in pairs})
    apart = np.full((len(matched), len(rows), *values.shape[2:]), np.nan, np.float32)
    for kind, pairs in enumerate(matched.values()):
        for number, row in enumerate(rows):
            mine = [
                mean(row, one.span) - mean(one.beside, one.matched)
                for one in pairs
                if one.row == row
            ]
            if mine:
                apart[kind, number] = np.mean(mine, axis=0)
    whole = xr.DataArray(apart, dims=("match", "prompt", "layer", "dim"), name=means.name)
    whole = whole.assign_coords(
        match=list(matched), prompt=[ids[row] for row in rows], layer=means["layer"].values
    )
    return stamp(whole, read(means))


def _places(matched: Matched) -> dict[int, list[Stretch]]:
    """The stretches of each row that are a span or a match, each once."""
    places: dict[int, list[Stretch]] = {}
    for pairs in matched.values():
        for one in pairs:
            for row, stretch in ((one.row, one.span), (one.beside, one.matched)):
                mine = places.setdefault(row, [])
                if stretch not in mine:
                    mine.append(stretch)
    return places
