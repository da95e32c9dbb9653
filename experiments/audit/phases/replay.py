"""Phase 4: what else the same ids and weights say: likelihoods, mean directions, answers, B."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import gather
from experiments.audit.evidence.spans import Match, Stretch, by_match
from experiments.audit.inputs import Inputs
from experiments.audit.phases import questions
from experiments.audit.run import Run
from experiments.audit.settings.adapters import UNBIASED
from experiments.audit.settings.groups import Settings
from tracekit.progress import Bar
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of
from traits import as_cosine


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write likelihoods, unit means, questions and, with neutral prompts, the blind ones.

    Unit means are of every adapter at all layers, so that any direction can be read off them.
    """
    there = Run(folder)
    organism = tk.open(there.responses("organism"))
    two, every = ("clean", "organism"), tuple(settings.arms)
    made: dict[Path, Callable[[], xr.DataArray | None]] = {
        there.logprobs: lambda: by_weights(inputs, settings, organism, _logprobs, two),
        there.means: lambda: unit_means(inputs, settings, organism),
        there.questions: lambda: questions.answers(
            inputs.model, organism, settings, inputs.prompts
        ),
    }
    runs = neutral(tk.open(there.responses("clean")))
    if runs.sizes["prompt"]:
        vectors = there.vectors_of(settings.vectors.method)
        made[there.neutral_means] = lambda: unit_means(inputs, settings, runs)
        made[there.blind] = lambda: blind(
            inputs, settings, runs, vectors, tk.open(there.neutral_means)
        )
    made[there.span_contrasts] = lambda: _span_contrasts(folder, inputs, settings, organism, every)
    for name in (name for name in every if name != "organism"):
        made[there.own_means(name)] = partial(_own_means, folder, settings, inputs, name)
    for path, build in Bar(made.items(), unit="part", desc="replay"):
        former = path == there.means and not _of_all(path, every)
        if (former or not path.is_file()) and (array := build()) is not None:
            tk.save(array, path)
    return list(made)


def by_weights(
    inputs: Inputs, settings: Settings, runs: xr.Dataset, what, names: Sequence[str]
) -> xr.DataArray:
    """The same quantity of the same ids under the weights of each arm, along `weights`."""
    found = []
    for weights in names:
        with tk.adapter(inputs.model, settings.arms[weights].adapter) as model:
            found.append(what(model, runs))
    whole = xr.concat(found, xr.Variable("weights", list(names)), combine_attrs="override")
    return stamp(whole, {**read(found[1]), "arms": [read(array) for array in found]})


def unit_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over tokens of residuals scaled to length one: (token, dim) to (dim,).

    Its dot product with a unit vector is the mean cosine of the response with that vector.

    >>> unit_mean(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000])
    """
    return (values / values.norm(dim=-1, keepdim=True)).mean(0)


def span_contrasts(model, runs: xr.Dataset, matched: Mapping[str, Sequence[Match]]) -> xr.DataArray:
    """Mean unit residuals at spans minus at their matches: (match, prompt, layer, dim).

    Of the answers that have a match, NaN where one has none of that kind. The dot product with a
    unit vector is what `spans.span_means` makes of cosines.
    """
    every = [one for pairs in matched.values() for one in pairs]
    ends = [end for one in every for end in ((one.row, one.span), (one.beside, one.matched))]
    places = {place: number for number, place in enumerate(dict.fromkeys(ends))}
    means = _at_places(model, runs, list(places))
    rows = sorted({one.row for one in every})
    values = np.full((len(matched), len(rows), *means.shape[1:]), np.nan, np.float32)
    for kind, pairs in enumerate(matched.values()):
        for number, row in enumerate(rows):
            apart = [
                means.values[places[one.row, one.span]]
                - means.values[places[one.beside, one.matched]]
                for one in pairs
                if one.row == row
            ]
            if apart:
                values[kind, number] = np.mean(apart, axis=0)
    ids = ids_of(runs)
    whole = xr.DataArray(values, dims=("match", *means.dims), name=means.name)
    whole = whole.assign_coords(
        match=list(matched), prompt=[ids[row] for row in rows], layer=means["layer"].values
    )
    return stamp(whole, read(means))


def _at_places(model, runs: xr.Dataset, places: Sequence[tuple[int, Stretch]]) -> xr.DataArray:
    """The mean unit residual of each stretch, a row a place."""
    ids, rows = ids_of(runs), runs.isel(prompt=[row for row, _ in places])
    names = [f"{ids[row]}|{start}:{stop}" for row, (start, stop) in places]
    marked = np.zeros((len(places), runs.sizes["token"]), bool)
    for number, (_, (start, stop)) in enumerate(places):
        marked[number, start:stop] = True
    labels = {"prompt": names, "token": runs["token"].values}
    tokens = xr.DataArray(marked, labels, ("prompt", "token"))
    return tk.capture(model, rows.assign_coords(prompt=names), tokens=tokens, reduce=unit_mean)


def neutral(runs: xr.Dataset) -> xr.Dataset:
    """The responses to neutral prompts."""
    return runs.isel(prompt=np.flatnonzero(runs["part"].values == "neutral"))


def unit_means(inputs: Inputs, settings: Settings, runs: xr.Dataset) -> xr.DataArray:
    """Mean unit residuals of the same `runs` under every arm: (weights, prompt, layer, dim)."""
    return by_weights(inputs, settings, runs, _unit_means, tuple(settings.arms))


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


def _logprobs(model, runs: xr.Dataset) -> xr.DataArray:
    return tk.logprobs(model, runs).sel(token=slice(0, None))


def _unit_means(model, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(model, runs, tokens=slice(0, None), reduce=unit_mean)


def _span_contrasts(
    folder: Path, inputs: Inputs, settings: Settings, runs: xr.Dataset, names: Sequence[str]
) -> xr.DataArray | None:
    """Those of every arm; None where no span has a match."""
    matched = by_match(gather.answers_of(folder, "organism", runs))
    if not any(matched.values()):
        return None
    what = partial(span_contrasts, matched=matched)
    return by_weights(inputs, settings, runs, what, names)


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
    with tk.adapter(inputs.model, settings.arms[name].adapter) as model:
        return _unit_means(model, runs)
