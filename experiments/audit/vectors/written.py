"""Vectors on answers that people wrote: fitted on one writer's pairs, judged on the other's."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
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

STORIES, CHATS, TOLD = "stories", "chats", "all constructions"
SOURCES = (STORIES, f"{STORIES} + {CHATS}", CHATS)
FURTHER = (TOLD, f"{TOLD} + {CHATS}")  # where a trait's stories are told in several ways
FITTED = 20  # of a writer's pairs; by the others the layer is chosen
DRAWS = 39  # of each null, at most: all traits are fitted anew in each


@dataclass(frozen=True)
class Pairs:
    """One trait's pairs: its stories by part, and the answers of two writers; all with windows.

    `told` are its stories in other constructions, by part too.
    """

    stories: Mapping[str, Sides]
    chats: Mapping[str, Sides]
    told: Mapping[str, Mapping[str, Sides]]


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
    writer (both of equal weight), or on the chat pairs alone; where stories are told in several
    constructions, on all of them (of equal weight) with and without the chat pairs too. Window and
    layer are chosen for all traits at once, on the stories' select part or on that writer's other
    pairs; judged on the other writer's pairs, and with the writers exchanged (`writer` is the one
    judged). Two forms, see `traits.evaluate_jointly`; the orthogonal one is freed of pleasantness
    too.

    Returns `estimate`, `low`, `high`, `null_95`, `vector`, `selected_window` and `selected_layer`
    over (source, form, writer, trait, …); `areas` (kind, source, form, trait, trait_other): the
    AUROC of each vector on every trait's chats, and on the report part of its stories by
    construction (NaN without one); and `specificity` of these, NaN for a single trait.
    """
    generator = np.random.default_rng([settings.null.seed, zlib.crc32(b"written")])
    told = settings.vectors.constructions
    further = {name: [contrast.name for contrast in told.get(name, [])] for name in names}
    given = {name: _pairs(folder, settings, name, further[name]) for name in names}
    axes, placebos = _axes(folder, settings), _placebos(folder, settings)
    made, sources = [], (*SOURCES, *(FURTHER if any(p.told for p in given.values()) else ()))
    for source in sources:
        ways = []
        for judge in (1, 0):
            parts = {name: parts_of(pairs, source, judge) for name, pairs in given.items()}
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
    result = xr.concat(made, xr.Variable("source", list(sources)))
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


def _pairs(folder: Path, settings: Settings, name: str, further: Sequence[str]) -> Pairs:
    traces = tk.open(Run(folder).story(name))
    told = {
        way.rpartition("/")[2]: _by_part(tk.open(Run(folder).story(way)), settings)
        for way in further
    }
    written = tk.open(Run(folder).written(name)).sel(layer=traces["layer"].values)
    windows = traces.sizes["window"]
    chats = {name: of_writer(written, name, windows)[1] for name in writers(written)}
    return Pairs(_by_part(traces, settings), chats, told)


def _by_part(traces: xr.DataArray, settings: Settings) -> dict[str, Sides]:
    part = split(traces, settings)[0].values
    positive, negative = windowed_pairs(traces)
    return {p: (positive.values[part == p], negative.values[part == p]) for p in np.unique(part)}


def parts_of(pairs: Pairs, source: str, judge: int) -> Parts:
    """What vectors of `source` are fitted on, chosen by and, of the writer `judge`, judged on."""
    sides = list(pairs.chats.values())
    teacher, report = sides[1 - judge], sides[judge]
    chats = teacher[0][:FITTED], teacher[1][:FITTED]
    rest = teacher[0][FITTED:], teacher[1][FITTED:]
    if source == CHATS:
        return Parts(chats, rest, report)
    ways = [pairs.stories, *(pairs.told.values() if source in FURTHER else ())]
    each = len(pairs.stories["fit"][0])
    told = _together([stretched(way["fit"], each) for way in ways])
    if source in (STORIES, TOLD):
        return Parts(told, _together([way["select"] for way in ways]), report)
    return Parts(_together([told, stretched(chats, each * len(ways))]), rest, report)


def _together(sides: Sequence[Sides]) -> Sides:
    positive, negative = (np.concatenate(side) for side in zip(*sides, strict=True))
    return positive, negative


def _areas(found: xr.Dataset, given: Mapping[str, Pairs], judge: int) -> xr.DataArray:
    names = list(given)
    ways = sorted({way for pairs in given.values() for way in pairs.told})
    kinds = [CHATS, STORIES, *ways]
    values = np.full((len(kinds), found.sizes["form"], len(names), len(names)), np.nan)
    for form in range(found.sizes["form"]):
        one = found.isel(form=form)
        place = int(one["selected_window"]), int(one["selected_layer"])
        vectors = one["vector"].transpose("dim", "trait").values.astype(np.float64)
        for column, pairs in enumerate(given.values()):
            told = {way: parts["report"] for way, parts in pairs.told.items()}
            own = list(pairs.chats.values())[judge]
            sets = {CHATS: own, STORIES: pairs.stories["report"], **told}
            for kind, sides in sets.items():
                scores = [(side[:, *place] @ vectors).T for side in sides]
                values[kinds.index(kind), form, :, column] = rank_auroc(*scores)
    return xr.DataArray(
        values,
        dims=("kind", "form", "trait", "trait_other"),
        coords={"kind": kinds, "trait_other": names},
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
