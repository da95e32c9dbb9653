"""Phase 4: what else the same ids and weights say: likelihoods, mean directions, answers, B."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.phases import questions
from experiments.audit.run import Run
from experiments.audit.settings.adapters import UNBIASED
from experiments.audit.settings.groups import Settings
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp
from traits import as_cosine


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write likelihoods, mean directions, questions and, with neutral prompts, the blind ones."""
    there = Run(folder)
    organism = tk.open(there.responses("organism"))
    made: dict[Path, Callable[[], xr.DataArray]] = {
        there.logprobs: lambda: by_weights(inputs, settings, organism, _logprobs),
        there.means: lambda: by_weights(inputs, settings, organism, _unit_means),
        there.questions: lambda: questions.answers(
            inputs.model, organism, settings, inputs.prompts
        ),
    }
    runs = neutral(tk.open(there.responses("clean")))
    if runs.sizes["prompt"]:
        vectors = there.vectors_of(settings.vectors.method)
        made[there.blind] = lambda: blind(inputs, settings, runs, vectors)
    for path, build in Bar(made.items(), unit="part", desc="replay"):
        if not path.is_file():
            tk.save(build(), path)
    return list(made)


def by_weights(inputs: Inputs, settings: Settings, runs: xr.Dataset, what) -> xr.DataArray:
    """The same quantity of the same ids under clean and organism weights, along `weights`."""
    found = []
    for weights in ("clean", "organism"):
        with tk.adapter(inputs.model, settings.arms[weights].adapter) as model:
            found.append(what(model, runs))
    whole = xr.concat(
        found, xr.Variable("weights", ["clean", "organism"]), combine_attrs="override"
    )
    return stamp(whole, {**read(found[1]), "arms": [read(array) for array in found]})


def unit_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over tokens of residuals scaled to length one: (token, dim) to (dim,).

    Its dot product with a unit vector is the mean cosine of the response with that vector.

    >>> unit_mean(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000])
    """
    return (values / values.norm(dim=-1, keepdim=True)).mean(0)


def neutral(runs: xr.Dataset) -> xr.Dataset:
    """The responses to neutral prompts."""
    return runs.isel(prompt=np.flatnonzero(runs["part"].values == "neutral"))


def blind(
    inputs: Inputs, settings: Settings, runs: xr.Dataset, vectors: xr.DataArray
) -> xr.DataArray:
    """Response means of cosines on the same `runs`, clean answers to neutral prompts, by adapter.

    (adapter, prompt, layer, trait); `benign` (adapter) marks those that the organism is held
    against: the controls without a bias and every adapter of the folder `benign`.
    """
    folder, arms = settings.adapters.benign, settings.adapters.arms
    extra = sorted(Path(folder).glob("*/adapter_config.json")) if folder else []
    beside = {path.parent.name: str(path.parent) for path in extra}
    adapters = {**{arm.name: arm.adapter for arm in arms}, **beside}
    found = []
    for name in Bar(adapters, unit="adapter", desc="blind", leave=False):
        with tk.adapter(inputs.model, adapters[name]) as model:
            raw = tk.capture(
                model,
                runs,
                vectors=vectors,
                tokens=slice(0, None),
                transfer=bool(settings.model.base),
                progress=False,
            )
        found.append(as_cosine(raw).mean("token", keep_attrs=True).drop_attrs())
    whole = xr.concat(found, xr.Variable("adapter", list(adapters))).rename("cosine")
    whole = whole.drop_vars([name for name in whole.coords if name not in whole.dims])
    known = {*beside, *(arm.name for arm in arms if arm.role in UNBIASED)}
    marked = whole.assign_coords(benign=("adapter", [name in known for name in adapters]))
    return stamp(marked, {**read(raw), "made_by": "experiments.audit.phases.replay"})


def _logprobs(model, runs: xr.Dataset) -> xr.DataArray:
    return tk.logprobs(model, runs).sel(token=slice(0, None))


def _unit_means(model, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(model, runs, tokens=slice(0, None), reduce=unit_mean)
