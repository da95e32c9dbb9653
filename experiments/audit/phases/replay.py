"""Phase 4: what else the same ids and weights say: likelihoods, mean directions, answers, B."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.inputs import Inputs
from experiments.audit.phases import questions, span_means
from experiments.audit.phases.span_means import unit_mean
from experiments.audit.run import MEASURED, Run
from experiments.audit.settings.adapters import UNBIASED
from experiments.audit.settings.groups import Settings
from tracekit import Model
from tracekit.model import distributed
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of
from traits import as_cosine


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write likelihoods, unit means, questions and, with neutral prompts, the blind ones.

    Unit means are of every adapter at all layers, so that any direction can be read off them. What
    the capture has measured is put together; what it has not is asked of the model.
    """
    there, means = Run(folder), partial(_by_weights, folder, settings, inputs)
    organism = tk.open(there.responses("organism"))
    every = tuple(settings.arms)
    made: dict[Path, Callable[[], xr.DataArray | None]] = {
        there.logprobs: lambda: means("logprob", organism, "organism", ("clean", "organism")),
        there.means: lambda: means("means", organism, "organism", every),
        there.questions: lambda: questions.answers(
            inputs.model, organism, settings, inputs.prompts
        ),
    }
    runs = neutral(tk.open(there.responses("clean")))
    if runs.sizes["prompt"]:
        vectors = there.vectors_of(settings.vectors.method)
        made[there.neutral_means] = lambda: means("means", runs, "clean", every)
        made[there.blind] = lambda: blind(
            inputs, settings, runs, vectors, tk.open(there.neutral_means)
        )
    made[there.span_contrasts] = lambda: _span_contrasts(folder, settings, inputs, organism)
    for name in (name for name in every if name != "organism"):
        made[there.own_means(name)] = partial(_own_means, folder, settings, inputs, name)
    for path, build in Bar(made.items(), unit="part", desc="replay"):
        former = path == there.means and not _of_all(path, every)
        if (former or not path.is_file()) and (array := build()) is not None:
            tk.save(array, path)
    distributed.wait(inputs.model)
    # all of it lies in these files now
    shutil.rmtree(folder / MEASURED, ignore_errors=True)
    return list(made)


def _by_weights(
    folder: Path,
    settings: Settings,
    inputs: Inputs,
    what: str,
    runs: xr.Dataset,
    text: str,
    names: Sequence[str],
) -> xr.DataArray:
    """What the capture measured of some rows of a text under each weights, along `weights`."""
    make = partial(MEASURES[what], runs=runs)
    found = {
        name: _measured(folder, settings, inputs, what, f"{name}/{text}", make) for name in names
    }
    return _along_weights({name: one.sel(prompt=ids_of(runs)) for name, one in found.items()})


def _measured(
    folder: Path,
    settings: Settings,
    inputs: Inputs,
    what: str,
    arm: str,
    make: Callable[[Model], xr.DataArray],
) -> xr.DataArray:
    """What the capture measured of an arm, or else what the model says under its weights."""
    path = Run(folder).measured(what, arm)
    if path.is_file():
        return tk.open(path)
    with tk.adapter(inputs.model, settings.arms[arm.split("/")[0]].adapter) as model:
        return make(model)


def _along_weights(found: Mapping[str, xr.DataArray]) -> xr.DataArray:
    arrays = list(found.values())
    whole = xr.concat(arrays, xr.Variable("weights", [*found]), combine_attrs="override")
    return stamp(whole, {**read(arrays[1]), "arms": [read(array) for array in arrays]})


def neutral(runs: xr.Dataset) -> xr.Dataset:
    """The responses to neutral prompts."""
    return runs.isel(prompt=np.flatnonzero(runs["part"].values == "neutral"))


def unit_means(inputs: Inputs, settings: Settings, runs: xr.Dataset) -> xr.DataArray:
    """Mean unit residuals of the same `runs` under every arm: (weights, prompt, layer, dim)."""
    found = {}
    for name, arm in settings.arms.items():
        with tk.adapter(inputs.model, arm.adapter) as model:
            found[name] = _unit_means(model, runs)
    return _along_weights(found)


def blind(
    inputs: Inputs,
    settings: Settings,
    runs: xr.Dataset,
    vectors: xr.DataArray,
    means: xr.DataArray,
) -> xr.DataArray:
    """Response means of cosines on the same `runs`, clean answers to neutral prompts, by adapter.

    (adapter, prompt, layer, trait); `benign` (adapter) marks those that the organism is held
    against: the controls without a bias and every adapter of the folder `benign`. Those of the
    run's own arms are read off their `unit_means`.
    """
    folder, arms = settings.adapters.benign, settings.adapters.arms
    extra = sorted(Path(folder).glob("*/adapter_config.json")) if folder else []
    beside = {path.parent.name: str(path.parent) for path in extra}
    own = [arm.name for arm in arms if arm.name not in beside]
    unit = vectors / tk.norm(vectors)
    found = [xr.dot(means.sel(weights=name, drop=True), unit, dim="dim") for name in own]
    for name in Bar(beside, unit="adapter", desc="blind", leave=False):
        with tk.adapter(inputs.model, beside[name]) as model:
            raw = tk.capture(
                model,
                runs,
                vectors=vectors,
                tokens=slice(0, None),
                transfer=bool(settings.model.base),
                progress=False,
            )
        found.append(as_cosine(raw).mean("token", keep_attrs=True).drop_attrs())
    adapters = [*own, *beside]
    whole = xr.concat(found, xr.Variable("adapter", adapters)).rename("cosine")
    whole = whole.drop_vars([name for name in whole.coords if name not in whole.dims])
    known = {*beside, *(arm.name for arm in arms if arm.role in UNBIASED)}
    marked = whole.assign_coords(benign=("adapter", [name in known for name in adapters]))
    return stamp(marked, {**read(means), "made_by": "experiments.audit.phases.replay"})


def _logprobs(model: Model, runs: xr.Dataset) -> xr.DataArray:
    return tk.logprobs(model, runs).sel(token=slice(0, None))


def _unit_means(model: Model, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(model, runs, tokens=slice(0, None), reduce=unit_mean)


MEASURES = {"logprob": _logprobs, "means": _unit_means}


def _span_contrasts(
    folder: Path, settings: Settings, inputs: Inputs, runs: xr.Dataset
) -> xr.DataArray | None:
    """Those of every arm; None where no span has a match."""
    pairs = span_means.matched(folder, runs)
    marks = span_means.marked(runs, pairs)
    if marks is None:
        return None
    found = {}
    for name in settings.arms:
        make = partial(span_means.at, runs=runs, marks=marks)
        means = _measured(folder, settings, inputs, "spans", f"{name}/organism", make)
        found[name] = span_means.contrasts(means, runs, pairs)
    return _along_weights(found)


def _of_all(path: Path, names: Sequence[str]) -> bool:
    """Whether unit means are of every arm: those that a former version made are of two alone."""
    if not path.is_file():
        return False
    return {*names} <= {*tk.open(path)["weights"].values.astype(str).tolist()}


def _own_means(folder: Path, settings: Settings, inputs: Inputs, name: str) -> xr.DataArray | None:
    """Those of the arm's own answers to held-out prompts; None where there are none."""
    runs = tk.open(Run(folder).responses(name))
    runs = runs.isel(prompt=np.flatnonzero(runs["part"].values == "held_out"))
    if not runs.sizes["prompt"]:
        return None
    make = partial(_unit_means, runs=runs)
    found = _measured(folder, settings, inputs, "means", f"{name}/{name}", make)
    return found.sel(prompt=ids_of(runs)).load()
