"""Rates with intervals and the null of the random arm, from saved measures alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from traits.statistics import cluster_bootstrap, wilson
from traits.statistics.permutation import against_null

GUARDS = ("nats", "repetition", "length")


def summarised(
    edits: xr.Dataset, directions: xr.DataArray, seed: int, repetitions: int
) -> xr.Dataset:
    """Every edit's exploitation rate and guards: a Dataset over (edit), one row of the table each.

    `rate`, `rate_low`, `rate_high`; `drop` (unedited organism − edited, paired by prompt) with
    its interval; `p`: the share of random directions of the same kind and multiple that drop at
    least as much, (b + 1) / (B + 1); `band_low`, `band_high`: 5 % and 95 % of their rates; the
    guards, `accuracy`, and the `seconds` it took. Intervals are 95 %, over prompts.

    Errors: `ValueError` when prompts have no decided response.
    """
    generator = np.random.default_rng([seed, 2])
    rows = _decided(edits)
    base = rows.isel(edit=_which(rows, "organism", "unedited"))
    exploit = rows["exploit"].astype(float)
    rate = _interval(exploit, "rate", generator, repetitions)
    drop = _interval(base["exploit"].astype(float) - exploit, "drop", generator, repetitions)
    whole = xr.merge([rate, drop])
    whole = whole.assign({name: rows[name].mean("prompt") for name in GUARDS})
    whole["accuracy"] = edits["accuracy"].mean("question")
    labels = {n: edits[n] for n in ("direction", "kind", "multiple")}
    arm = dict(zip(directions["direction"].values, directions["arm"].values, strict=True))
    kinds = [arm.get(name, "unedited") for name in edits["direction"].values]
    whole = whole.assign_coords(labels).assign_coords(arm=("edit", np.array(kinds, np.str_)))
    whole["seconds"] = edits["seconds"]
    whole.attrs = {"n": rows.sizes["prompt"], "unit": "prompt"}
    return _with_null(whole)


def slopes(validation: xr.Dataset, seed: int, repetitions: int) -> xr.Dataset:
    """How each trait's score rises with the strength: a Dataset over (trait), and `nats`.

    `slope`, `slope_low`, `slope_high`: nats of the model's own judgement for a residual norm
    added, with 95 % over questions. `judge`, `judge_low`, `judge_high`, where a judge was given:
    the rise of its share of Yes, over the `judge_questions` that it answered at every strength.
    """
    generator = np.random.default_rng([seed, 3])
    rises = validation[["nats"]].mean("prompt")
    for score, name in (("score", "slope"), ("judge", "judge")):
        if score in validation:
            rise = _slope(validation[score]).transpose("prompt", "trait")
            rises = rises.merge(_over_questions(rise, name, generator, repetitions))
    return rises.drop_attrs()


def _slope(scores: xr.DataArray) -> xr.DataArray:
    centred = scores["multiple"] - scores["multiple"].mean()
    return (scores * centred).sum("multiple", skipna=False) / (centred**2).sum()


def _over_questions(
    rise: xr.DataArray, name: str, generator: np.random.Generator, repetitions: int
) -> xr.Dataset:
    made = cluster_bootstrap(rise, "mean", generator=generator, group=None, repetitions=repetitions)
    made = made.rename(estimate=name, low=f"{name}_low", high=f"{name}_high").drop_attrs()
    return made.assign({f"{name}_questions": rise.notnull().sum("prompt")})


def by_bias(measures: xr.Dataset, edits: Sequence[int]) -> xr.Dataset:
    """The exploitation rate of some edits, `estimate` (edit, bias), with Wilson's `low`, `high`."""
    rows = _decided(measures).isel(edit=list(edits))
    hits = rows["exploit"].astype(float).groupby("bias")
    made = {"estimate": hits.mean("prompt")}
    for n, name in enumerate(("low", "high")):
        made[name] = hits.map(
            lambda some, n=n: xr.DataArray(
                [wilson(e.values.tolist())[n] for e in some], dims="edit"
            )
        ).transpose("edit", "bias")
    return xr.Dataset(made)


def _decided(measures: xr.Dataset) -> xr.Dataset:
    kept = (measures["exploit"] >= 0).all("edit").values
    if not kept.any():
        raise InputError(
            f"None of {measures.sizes['prompt']} prompts has responses that a rule decides; their "
            "biases have no detector."
        )
    return measures.isel(prompt=kept)


def _which(rows: xr.Dataset, direction: str, kind: str) -> int:
    match = (rows["direction"].values == direction) & (rows["kind"].values == kind)
    return int(np.flatnonzero(match)[0])


def _interval(
    values: xr.DataArray, name: str, generator: np.random.Generator, repetitions: int
) -> xr.Dataset:
    # the labels of an edit would ride along at every draw
    bare = values.drop_vars([n for n in values.coords if n not in ("prompt", "group")])
    made = cluster_bootstrap(bare, "mean", generator=generator, repetitions=repetitions)
    return made.rename(estimate=name, low=f"{name}_low", high=f"{name}_high").drop_attrs()


def _with_null(whole: xr.Dataset) -> xr.Dataset:
    columns = {
        name: np.full(whole.sizes["edit"], np.nan) for name in ("p", "band_low", "band_high")
    }
    settings = list(zip(whole["kind"].values, whole["multiple"].values, strict=True))
    for setting in set(settings):
        same = np.array([other == setting for other in settings])
        null = np.flatnonzero(same & (whole["arm"].values == "random"))
        if not len(null):
            continue
        drops, rates = (whole[name].values[null] for name in ("drop", "rate"))
        for row in np.flatnonzero(same & (whole["arm"].values != "random")):
            here = against_null(whole["drop"][row], xr.DataArray(drops, dims="draw"))
            columns["p"][row] = float(here["p"])
        columns["band_low"][same], columns["band_high"][same] = np.quantile(rates, [0.05, 0.95])
    return whole.assign({name: ("edit", values) for name, values in columns.items()})
