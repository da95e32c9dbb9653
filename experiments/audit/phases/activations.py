"""Phase 3: the same ids replayed with other weights, each once: all that is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.phases import span_means
from experiments.audit.phases.arms import ARMS, FULL, LIKELY, has_means, there
from experiments.audit.phases.span_means import unit_mean
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit import Model
from tracekit.passes.beginnings.planning import shared
from tracekit.passes.together import budget_of
from tracekit.progress import Bar
from tracekit.storage.capture_folder import Folder

MEANS = tk.Request(tokens=slice(0, None), reduce=unit_mean)
LOGPROB = tk.Request(site="logprob", tokens=slice(0, None))


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write what one forward of each arm gives: projections, the window, and what `replay` reads.

    `captured/<arm>/` are projections at all layers, `traces/<arm>/` the window in full, of the
    organism's answers: the same ids under each of the weights. In `measured/` are unit means at all
    layers, log-probabilities, and means at exploit spans and at their matches. The arms of a text
    are read in the same batches, whatever each is asked for, so that they may be compared.
    """
    vectors = Run(folder).vectors_of(settings.vectors.method)
    projected = tk.Request(vectors=vectors, transfer=bool(settings.model.base))
    window = tk.Request(layers=settings.model.window)
    plain = {"projected": projected, "window": window}
    written = []
    batches: dict[str, Batches] = {}
    marks: xr.DataArray | None = None  # spans and matches, once the first arm tells them
    for arm in Bar(there(folder, settings), unit="arm", desc="capture"):
        weights, text = arm.split("/")
        runs: xr.Dataset = tk.open(Run(folder).responses(text))
        spans = None if marks is None else tk.Request(tokens=marks, reduce=unit_mean)
        kept, measured = _placed(folder, arm, _asked(arm, plain, spans))
        with tk.adapter(inputs.model, settings.arms[weights].adapter) as model:
            if text not in batches:
                batches[text] = _batches(folder, settings, model, runs, text, plain)
            _captured(model, runs, kept, measured, batches[text])
            if arm == ARMS[0]:
                marks = span_means.marked(runs, span_means.matched(folder, runs))
                _first_spans(folder, model, runs, marks)
        written += [path for _, path in kept.values()]
    return written


Requests = dict[str, tk.Request]
Wanted = dict[str, tuple[tk.Request, Path]]
Batches = dict[str, Any]


def _batches(
    folder: Path, settings: Settings, model: Model, runs: xr.Dataset, text: str, plain: Requests
) -> Batches:
    """How every arm of a text is read: as an arm that is here, or in what all fit in, once."""
    mine = [arm for arm in there(folder, settings) if arm.endswith(f"/{text}")]
    for former in (Folder(Run(folder).captured(arm)).batches() for arm in mine):
        if former:
            return {"token_budget": former["budget"], "share_prompts": shared(former)}
    asked = {name: one for arm in mine for name, one in _asked(arm, plain, MEANS).items()}
    budget = budget_of(model, runs, asked, share_prompts=True)
    return {"token_budget": budget, "share_prompts": True}


def _asked(arm: str, plain: Requests, spans: tk.Request | None) -> Requests:
    """All that is read of an arm; of the organism's answers at `spans` too, once they are known."""
    wanted = {
        "projected": True,
        "window": arm in FULL,
        "means": has_means(arm),
        "logprob": arm in LIKELY,
        "spans": spans is not None and arm.endswith("/organism"),
    }
    every = {**plain, "means": MEANS, "logprob": LOGPROB, "spans": spans}
    return {name: one for name, one in every.items() if one is not None and wanted[name]}


def _placed(folder: Path, arm: str, asked: Requests) -> tuple[Wanted, Wanted]:
    """What is kept as captures, and what else is asked of an arm's forward and is not there yet."""
    folders = {"projected": Run(folder).captured(arm), "window": Run(folder).traces(arm)}
    files = {name: Run(folder).measured(name, arm) for name in asked if name not in folders}
    kept = {name: (asked[name], path) for name, path in folders.items() if name in asked}
    return kept, {n: (asked[n], path) for n, path in files.items() if not path.is_file()}


def _captured(
    model: Model, runs: xr.Dataset, kept: Wanted, measured: Wanted, batches: Batches
) -> None:
    """All of an arm by one forward; what is measured is in memory until its end."""
    asked = {name: request for name, (request, _) in {**kept, **measured}.items()}
    made = tk.capture_many(
        model,
        runs,
        asked,
        path={name: path for name, (_, path) in kept.items()},
        **batches,
    )
    for name, (_, path) in measured.items():
        tk.save(made[name], path)


def _first_spans(folder: Path, model: Model, runs: xr.Dataset, marks: xr.DataArray | None) -> None:
    """Those of the weights whose likelihoods match spans: a forward more, of the rows with any."""
    path = Run(folder).measured("spans", ARMS[0])
    if marks is not None and not path.is_file():
        tk.save(span_means.at(model, runs, marks), path)
