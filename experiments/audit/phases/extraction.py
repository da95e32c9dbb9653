"""Phase 1: trait vectors from contrast sets, each judged on pairs that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from experiments.audit.vectors import (
    instructed,
    relations,
    stories,
    vector_figures,
    vector_table,
    written,
)
from experiments.audit.vectors.evaluation import judged
from tracekit.errors import InputError
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp
from traits import ContrastSet, split_pairs
from traits.statistics import benjamini_hochberg

_SOURCE = (
    "model",
    "revision",
    "weights",
    "depth",
    "dtype",
    "tokenizer",
    "vocabulary",
    "template",
)


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write the vectors, how they did (also as CSV and text) and figures.

    Vectors (trait, extraction, layer, dim) are fitted on one part of the pairs, layer and token
    window are chosen on a second, and what is reported is measured on a third. A trait that is
    not above its bands is marked in `passed` (see `evaluation.judged`). Captured on the way and
    not again: stories, placebos where asked for, and in a full evaluation chats, those under
    instruction (does the model obey?) and those that two writers wrote (see `written.judged`).
    """
    _refuse_unfit(inputs.contrasts, settings)
    _capture_stories(folder, settings, inputs)
    fitted = []
    for contrast in Bar(inputs.contrasts, unit="trait", desc="evaluate"):
        fitted.append(_judged(folder, settings, inputs, contrast))
    vectors = _joined([vector for vector, _ in fitted], "vectors", settings)
    evaluation = xr.concat([found for _, found in fitted], "trait", combine_attrs="drop")
    evaluation = evaluation.merge(_corrected(evaluation))
    sets = [*inputs.contrasts, *stories.placebo_sets(settings)]
    evaluation = relations.added(folder, settings, inputs.model, vectors, evaluation, sets)
    if settings.vectors.full:
        evaluation = _on_written(folder, settings, inputs, evaluation)
    evaluation = stamp(evaluation, {**read(vectors), "what": "evaluation"})
    evaluation = evaluation.assign_attrs(method=settings.vectors.method)
    there = Run(folder)
    tk.save(vectors.rename("vector"), there.vectors)
    tk.save(evaluation, there.evaluation)
    shown = [*vector_table.write(evaluation, folder), *vector_figures.draw(evaluation, folder)]
    chats = settings.vectors.full or settings.vectors.chat_pairs
    beside = [there.all_chats] if chats else []
    beside += [there.placebos] if settings.vectors.with_placebos else []
    return [there.stories, *beside, there.vectors, there.evaluation, *shown]


def _refuse_unfit(contrasts: Sequence[ContrastSet], settings: Settings) -> None:
    for contrast in [*contrasts, *stories.construction_sets(settings)]:
        count = min(len(contrast), settings.vectors.pairs or len(contrast))
        split_pairs(xr.DataArray(np.arange(count), dims="pair"), generator=np.random.default_rng(0))
    for contrast in contrasts if settings.vectors.full else ():
        instructed.prompts(contrast)
    _refuse_without_chats(contrasts, settings)


def _refuse_without_chats(contrasts: Sequence[ContrastSet], settings: Settings) -> None:
    asked = settings.vectors.chat_pairs
    reasons = {c.name: written.undecided(settings.vectors.chats.get(c.name)) for c in contrasts}
    lacking = [f"{name} has {reason}" for name, reason in reasons.items() if reason]
    if asked and lacking:
        raise InputError(
            f"chat_pairs={asked} was asked for, and {'; '.join(lacking)}. Write chat.json, or give "
            "chat_pairs = 0."
        )


def _capture_stories(folder: Path, settings: Settings, inputs: Inputs) -> None:
    further = [stories.construction_sets, stories.placebo_sets, stories.axis_sets]
    sets = [*inputs.contrasts, *(contrast for some in further for contrast in some(settings))]
    if all(Run(folder).story(contrast.name).is_file() for contrast in sets):
        return
    base = inputs.base()
    with tk.adapter(base, None):
        for contrast in Bar(sets, unit="set", desc="extract"):
            path = Run(folder).story(contrast.name)
            if not path.is_file():
                tk.save(stories.made(base, contrast, settings), path)


def _judged(
    folder: Path, settings: Settings, inputs: Inputs, contrast: ContrastSet
) -> tuple[xr.DataArray, xr.Dataset]:
    traces = tk.open(Run(folder).story(contrast.name))
    chats = None
    if settings.vectors.full:
        with tk.adapter(inputs.model, None):
            chats = instructed.capture(inputs.model, contrast, settings.vectors.chat_tokens, folder)
    told = None
    if settings.vectors.chat_pairs:
        with tk.adapter(inputs.model, None):
            told = written.capture(inputs.model, settings.vectors.chats[contrast.name], folder)
    placebos = stories.placebo_vectors(settings, folder)
    vectors, found = judged(traces, settings, placebos, chats, told)
    made = {name: read(traces)[name] for name in _SOURCE}
    vectors = stamp(vectors, {"made_by": "experiments.audit.phases.extraction", **made})
    return vectors, found.assign_coords(trait=contrast.name)


def _on_written(
    folder: Path, settings: Settings, inputs: Inputs, evaluation: xr.Dataset
) -> xr.Dataset:
    chats = settings.vectors.chats
    reasons = {name: written.undecided(chats.get(name)) for name in settings.vectors.names}
    decided = [name for name, reason in reasons.items() if not reason]
    if not decided:
        return evaluation.assign(written_reason=("trait", [*reasons.values()]))
    with tk.adapter(inputs.model, None):
        for name in Bar(decided, unit="trait", desc="read chats"):
            written.capture(inputs.model, chats[name], folder)
    return written.added(evaluation, written.judged(folder, settings, decided), reasons)


def _corrected(evaluation: xr.Dataset) -> dict[str, xr.DataArray]:
    names = [name for name in ("p", "open_p", "chat_p") if name in evaluation]
    return {f"{name[:-1]}q": benjamini_hochberg(evaluation[name]) for name in names}


def _joined(fitted: Sequence[xr.DataArray], what: str, settings: Settings) -> xr.DataArray:
    whole = xr.concat(fitted, dim="trait", combine_attrs="drop_conflicts")
    made = {
        **read(fitted[0]),
        "what": what,
        "tokens": f"means over {', '.join(stories.windows(settings))} of the stories, as chosen",
        # the same weights play both roles where no base is given
        "transfer": bool(settings.model.base),
    }
    return stamp(whole, made)
