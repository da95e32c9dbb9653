"""What the base model goes through at the end of each contrast story, by token window."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit.storage.provenance import read, stamp
from traits import ContrastSet, available, elicit, extract, load_contrast, window_traces
from traits.contrast_sets.judge import ask, environment_key
from traits.contrast_sets.vetting import own_verdicts, questions, vet


def windows(settings: Settings) -> dict[str, slice]:
    """The token windows by name; without any, one over all that is elicited.

    >>> windows(settings)
    {'-3:1': slice(-3, 1, None)}
    """
    given = settings.vectors
    named = given.windows or (f"{-given.prefix}:{given.continuation - 1}",)
    bounds = {name: [int(end) for end in name.split(":")] for name in named}
    return {name: slice(first, last) for name, (first, last) in bounds.items()}


def made(model: Any, contrast: ContrastSet, settings: Settings) -> xr.DataArray:
    """The contrast traces of one set, of the pairs left by vetting: (prompt, window, layer, dim).

    >>> made(model, contrast, settings).dims
    ('prompt', 'window', 'layer', 'dim')
    """
    given = settings.vectors
    runs = elicit(model, contrast, pairs=given.pairs, continuation=given.continuation)
    if given.vet and not contrast.name.startswith(("placebo/", "axis/")):
        runs = vetted(model, contrast, runs, settings)
    return window_traces(model, runs, windows(settings))


def vetted(model: Any, contrast: ContrastSet, runs: xr.Dataset, settings: Settings) -> xr.Dataset:
    """The pairs whose positive side shows the trait more, by the setting `vet`; counts on stderr.

    >>> from experiments.audit.settings.presets import read_preset
    >>> settings = read_preset(presets, "tiny", {"vet": "model"})
    >>> vetted(model, contrast, stories, settings).attrs["vetted_undecided"]
    0
    """
    asked = questions(contrast, runs)
    if settings.vectors.vet == "model":
        kept = vet(runs, asked, own_verdicts(model, asked))
    else:
        at, key = (settings.vectors.vet, settings.answers.judge), environment_key()
        kept = vet(runs, asked, lambda text: ask(*at, text, key=key))
    counts = {name: kept.attrs[f"vetted_{name}"] for name in ("kept", "rejected", "undecided")}
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    tqdm.write(f"{contrast.name}: vetted pairs: {shown}", file=sys.stderr)
    made = {"by": settings.answers.judge or "the model", **counts}
    return stamp(kept, {**read(kept), "vetted": made})


def placebo_sets(settings: Settings) -> list[ContrastSet]:
    """The shipped sets about nothing of interest; none where the settings ask for none."""
    names = available("placebo") if settings.vectors.with_placebos else []
    return [load_contrast(name) for name in names]


def axis_sets(settings: Settings) -> list[ContrastSet]:
    """The shipped sets about what all traits share, of which vectors are freed; none when quick."""
    return [load_contrast(name) for name in available("axis")] if settings.vectors.full else []


def construction_sets(settings: Settings) -> list[ContrastSet]:
    """The traits' stories that are told in other ways; none in a quick evaluation."""
    found = settings.vectors.constructions.values() if settings.vectors.full else []
    return [contrast for sets in found for contrast in sets]


def placebo_vectors(settings: Settings, folder: Path) -> xr.DataArray | None:
    """Vectors of the placebo sets captured in `folder`: (trait, extraction, window, layer, dim).

    From all their pairs; saved beside them. None where the settings ask for none.
    """
    path, sets = Run(folder).placebos, placebo_sets(settings)
    if not sets:
        return None
    if not path.is_file():
        traces = (tk.open(Run(folder).story(contrast.name)) for contrast in sets)
        tk.save(_vectors(traces, settings.vectors.methods), path)
    return tk.open(path)


def _vectors(sets: Iterator[xr.DataArray], methods: Sequence[str]) -> xr.DataArray:
    fitted = []
    for traces in sets:
        by_window = [
            xr.concat(
                [extract(traces.sel(window=name), method) for method in methods],
                "extraction",
                combine_attrs="drop",
            )
            for name in traces["window"].values
        ]
        fitted.append(xr.concat(by_window, traces["window"], combine_attrs="drop"))
    made = xr.concat(fitted, "trait", combine_attrs="drop").rename("vector")
    return stamp(
        made.transpose("trait", "extraction", "window", "layer", "dim"),
        {"made_by": "experiments.audit.phases.extraction", "source": None},
    )
