"""Vectors on answers that people wrote: fitted on one writer's pairs, judged on the other's."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from experiments.audit.vectors import stories
from experiments.audit.vectors.evaluation import split
from experiments.audit.vectors.fitting import LEAST, of_writer, stretched, writers
from traits import METHODS, ChatSet, Parts, chat_traces, evaluate_jointly, specificity
from traits.statistics import rank_auroc
from traits.vectors.pairing import windowed_pairs
from traits.vectors.selection import Sides

SOURCES = ("stories", "stories + chats", "chats")
FITTED = 20  # of a writer's pairs; by the others the layer is chosen
DRAWS = 39  # of each null, at most: all traits are fitted anew in each


@dataclass(frozen=True)
class Pairs:
    """One trait's pairs: its stories by part, and the answers of two writers; all with windows."""

    stories: Mapping[str, Sides]
    chats: Mapping[str, Sides]


def undecided(chats: ChatSet | None) -> str:
    """Why a trait's chats decide nothing; empty where they can.

    >>> undecided(None)
    'no chat pairs'
    """
    if chats is None:
        return "no chat pairs"
    counts = {name: sum(pair.writer == name for pair in chats.pairs) for name in chats.writers}
    enough = [name for name, count in counts.items() if count >= LEAST]
    if len(enough) >= 2:
        return ""
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"chat pairs by writer: {shown}; two writers of at least {LEAST} each are needed"


def capture(model: Any, chats: ChatSet, folder: Path) -> xr.DataArray:
    """The mean over each written answer's tokens, (prompt, layer, dim), made once a folder."""
    path = Run(folder).written(chats.name)
    if not path.is_file():
        tk.save(chat_traces(model, chats), path)
    return tk.open(path)


def judged(folder: Path, settings: Settings, names: list[str]) -> xr.Dataset:
    """How vectors of each of `SOURCES` tell written answers, for the traits `names`.

    Of the vectors' one method: fitted on the stories' fit part, on these and 20 chat pairs of one
    writer (both of equal weight), or on the chat pairs alone; window and layer chosen for all
    traits at once, on the stories' select part or on that writer's other pairs; judged on the
    other writer's pairs, and with the writers exchanged (`writer` is the one judged). Two forms,
    see `traits.evaluate_jointly`; the orthogonal one is freed of pleasantness too.

    Returns `estimate`, `low`, `high`, `null_95`, `vector`, `selected_window` and `selected_layer`
    over (source, form, writer, trait, …); `areas` (kind, source, form, trait, trait_other): the
    AUROC of each vector on every trait's chats, and on the report part of its stories; and
    `specificity` of these, NaN for a single trait.
    """
    generator = np.random.default_rng([settings.null.seed, zlib.crc32(b"written")])
    given = {name: _pairs(folder, settings, name) for name in names}
    axes, placebos = _axes(folder, settings), _placebos(folder, settings)
    made = []
    for source in SOURCES:
        ways = []
        for judge in (1, 0):
            parts = {name: _parts(pairs, source, judge) for name, pairs in given.items()}
            method = METHODS[settings.vectors.method]
            found = evaluate_jointly(
                parts,
                method,
                generator=generator,
                axes=axes,
                placebos=placebos,
                draws=min(settings.vectors.draws, DRAWS),
                resamples=settings.null.repetitions // 2,
            )
            ways.append(found.assign(areas=_areas(found, given, judge)))
        made.append(xr.concat(ways, xr.Variable("writer", ["second", "first"])))
    result = xr.concat(made, xr.Variable("source", list(SOURCES)))
    labels = tk.open(Run(folder).story(names[0]))
    for dim in ("window", "layer"):
        place = result[f"selected_{dim}"]
        result[f"selected_{dim}"] = place.copy(data=labels[dim].values[place.values])
    areas = result["areas"].mean("writer")
    result["specificity"] = xr.full_like(areas.isel(trait_other=0, drop=True), np.nan)
    if len(names) > 1:
        result["specificity"] = specificity(areas.rename(trait_other="set"))
    return result.assign(areas=areas)


def added(evaluation: xr.Dataset, found: xr.Dataset, reasons: Mapping[str, str]) -> xr.Dataset:
    """The evaluation of all traits with `judged` as `written_…`; NaN where `reasons` say why."""
    every = evaluation["trait"].values
    renamed = found.rename({name: f"written_{name}" for name in found.data_vars})
    renamed = renamed.rename(measure="written_measure")
    whole = renamed.reindex(trait=every, trait_other=every)
    said = np.array([reasons.get(str(name), "") for name in every], np.str_)
    return evaluation.assign(whole.drop_vars("set", errors="ignore")).assign(
        written_reason=("trait", said)
    )


def _pairs(folder: Path, settings: Settings, name: str) -> Pairs:
    traces = tk.open(Run(folder).story(name))
    part = split(traces, settings)[0].values
    sides = windowed_pairs(traces)
    rows = {p: (sides[0].values[part == p], sides[1].values[part == p]) for p in np.unique(part)}
    written = tk.open(Run(folder).written(name)).sel(layer=traces["layer"].values)
    windows = traces.sizes["window"]
    chats = {name: of_writer(written, name, windows)[1] for name in writers(written)}
    return Pairs(rows, chats)


def _parts(pairs: Pairs, source: str, judge: int) -> Parts:
    sides = list(pairs.chats.values())
    teacher, report = sides[1 - judge], sides[judge]
    chats = teacher[0][:FITTED], teacher[1][:FITTED]
    rest = teacher[0][FITTED:], teacher[1][FITTED:]
    if source == SOURCES[0]:
        return Parts(pairs.stories["fit"], pairs.stories["select"], report)
    if source == SOURCES[2]:
        return Parts(chats, rest, report)
    told = pairs.stories["fit"]
    both = zip(told, stretched(chats, len(told[0])), strict=True)
    positive, negative = (np.concatenate(sides) for sides in both)
    return Parts((positive, negative), rest, report)


def _areas(found: xr.Dataset, given: Mapping[str, Pairs], judge: int) -> xr.DataArray:
    names = list(given)
    values = np.empty((2, found.sizes["form"], len(names), len(names)))
    for form in range(found.sizes["form"]):
        one = found.isel(form=form)
        place = int(one["selected_window"]), int(one["selected_layer"])
        vectors = one["vector"].transpose("dim", "trait").values.astype(np.float64)
        for column, pairs in enumerate(given.values()):
            kinds = list(pairs.chats.values())[judge], pairs.stories["report"]
            for kind, sides in enumerate(kinds):
                scores = [(side[:, *place] @ vectors).T for side in sides]
                values[kind, form, :, column] = rank_auroc(*scores)
    return xr.DataArray(
        values,
        dims=("kind", "form", "trait", "trait_other"),
        coords={"kind": ["chats", "stories"], "trait_other": names},
    )


def _axes(folder: Path, settings: Settings) -> np.ndarray:
    sets = stories.axis_sets(settings)
    sides = [windowed_pairs(tk.open(Run(folder).story(contrast.name))) for contrast in sets]
    return np.stack([(one.values - other.values).mean(axis=0) for one, other in sides])


def _placebos(folder: Path, settings: Settings) -> np.ndarray | None:
    placebos = stories.placebo_vectors(settings, folder)
    if placebos is None:
        return None
    rows = placebos.sel(extraction=settings.vectors.method)
    return rows.transpose("trait", "window", "layer", "dim").values
