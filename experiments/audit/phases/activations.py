"""Phase 3: the same ids replayed with other weights, each once: all that is read of them."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.phases import span_means
from experiments.audit.phases.arms import ARMS, FULL, LIKELY, has_means, there
from experiments.audit.phases.span_means import unit_mean
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit import Model
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
    written = []
    budgets: dict[str, int] = {}
    marks: xr.DataArray | None = None  # spans and matches, once the first arm tells them
    for arm in Bar(there(folder, settings), unit="arm", desc="capture"):
        weights, text = arm.split("/")
        runs: xr.Dataset = tk.open(Run(folder).responses(text))
        kept = {"projected": (projected, Run(folder).captured(arm))}
        if arm in FULL:
            kept["window"] = (window, Run(folder).traces(arm))
        with tk.adapter(inputs.model, settings.arms[weights].adapter) as model:
            if text not in budgets:
                budgets[text] = _budget(folder, settings, model, runs, text, projected, window)
            _captured(model, runs, kept, _measured(folder, arm, marks), budgets[text])
            if arm == ARMS[0]:
                marks = span_means.marked(runs, span_means.matched(folder, runs))
                _first_spans(folder, model, runs, marks)
        written += [path for _, path in kept.values()]
    return written


Wanted = dict[str, tuple[tk.Request, Path]]


def _budget(
    folder: Path,
    settings: Settings,
    model: Model,
    runs: xr.Dataset,
    text: str,
    projected: tk.Request,
    window: tk.Request,
) -> int:
    """Tokens a batch of every arm of a text: those of an arm that is here, or that fit in all."""
    mine = [arm for arm in there(folder, settings) if arm.endswith(f"/{text}")]
    former = [Folder(Run(folder).captured(arm)).budget() for arm in mine]
    asked = {"projected": projected, "means": MEANS}
    if {*mine} & {*FULL}:
        asked["window"] = window
    if {*mine} & {*LIKELY}:
        asked |= {"logprob": LOGPROB, "spans": MEANS}
    return next(filter(None, former), None) or budget_of(model, runs, asked)


def _captured(model: Model, runs: xr.Dataset, kept: Wanted, measured: Wanted, budget: int) -> None:
    """All of an arm by one forward; what is measured is in memory until its end."""
    asked = {name: request for name, (request, _) in {**kept, **measured}.items()}
    made = tk.capture_many(
        model,
        runs,
        asked,
        path={name: path for name, (_, path) in kept.items()},
        token_budget=budget,
    )
    for name, (_, path) in measured.items():
        tk.save(made[name], path)


def _measured(folder: Path, arm: str, marks: xr.DataArray | None) -> Wanted:
    """What else is asked of an arm's forward, and is not there yet."""
    asked: dict[str, tk.Request] = {}
    if has_means(arm):
        asked["means"] = MEANS
    if arm in LIKELY:
        asked["logprob"] = LOGPROB
    if arm.endswith("/organism") and marks is not None:
        asked["spans"] = tk.Request(tokens=marks, reduce=unit_mean)
    paths = {name: Run(folder).measured(name, arm) for name in asked}
    return {name: (asked[name], path) for name, path in paths.items() if not path.is_file()}


def _first_spans(folder: Path, model: Model, runs: xr.Dataset, marks: xr.DataArray | None) -> None:
    """Those of the weights whose likelihoods match spans: a forward more, of the rows with any."""
    path = Run(folder).measured("spans", ARMS[0])
    if marks is not None and not path.is_file():
        tk.save(span_means.at(model, runs, marks), path)
