"""Vectors of one trait, and how they do on pairs that they have not seen."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from experiments.audit.settings.groups import Settings
from experiments.audit.vectors.fitting import with_chats
from traits import evaluate, extract, pairs, passed, project, select_part, split_pairs
from traits.statistics import cluster_bootstrap, paired_auroc

OPEN_DRAWS = 19  # of every method at every window and layer: the costliest part
KEPT = ("estimate", "low", "high", "p", "null_p", "null_quantile", "null_draws", "n_report")


def split(traces: xr.DataArray, settings: Settings) -> tuple[xr.DataArray, np.random.Generator]:
    """Which part (fit, select, report) each pair belongs to, and the generator that drew it.

    Both depend on the seed and the trait's name only.
    """
    pair = pairs(traces.isel(layer=[0], dim=[0]))[0]["pair"]
    name = str(pair.values[0]).rpartition("/")[0]
    generator = np.random.default_rng([settings.null.seed, zlib.crc32(name.encode())])
    return split_pairs(pair, generator=generator), generator


def judged(
    traces: xr.DataArray,
    settings: Settings,
    placebos: xr.DataArray | None = None,
    chats: xr.DataArray | None = None,
    written: xr.DataArray | None = None,
) -> tuple[xr.DataArray, xr.Dataset]:
    """A trait's vectors (extraction, layer, dim), each at the window chosen for it; a verdict.

    Over (extraction, layer): `auroc` with its interval on the report part, `auroc_select`; over
    (extraction): `layer_selected`, `window_selected`. Of the method that is projected on:
    `estimate`, `low`, `high` over `measure`, the nulls (see `traits.evaluate`), `findings`, and
    `passed`, 1 where its AUROC is above the bands of shuffled pairs and of placebos. `open_…` are
    the same with the method chosen too, `chat_…` on chats. Of `written` answers, where they are
    given, the setting `chat_pairs` says how many pairs join the fit; stories choose and report.
    """
    part, generator = split(traces, settings)
    if written is not None:
        traces, part = with_chats(traces, part, written, settings.vectors.chat_pairs)

    def run(methods: tuple[str, ...], **more: Any) -> xr.Dataset:
        others = None if placebos is None else placebos.sel(extraction=list(methods))
        given = {"generator": generator, "part": part, "resamples": settings.null.repetitions // 2}
        return evaluate(traces, list(methods), **{"placebos": others, **given, **more})

    none = {"draws": 0, "placebos": None, "resamples": 2}
    audit = run((settings.vectors.method,), draws=settings.vectors.draws)
    paths = {
        name: audit if name == settings.vectors.method else run((name,), **none)
        for name in settings.vectors.methods
    }
    vectors = _vectors(traces, part, paths)
    found = [_by_layer(traces, part, vectors, paths, generator, settings), _verdict(audit)]
    if settings.vectors.full:
        found.append(_named(run(settings.vectors.methods, draws=OPEN_DRAWS), "open"))
    if chats is not None:
        told = run((settings.vectors.method,), draws=settings.vectors.draws, report=chats)
        found.append(_named(told, "chat").assign(_instructions(chats, vectors, audit, settings)))
    return vectors, xr.merge(found, join="exact", combine_attrs="drop", compat="override")


def _verdict(audit: xr.Dataset) -> xr.Dataset:
    curves = audit[["null_curve"]] if "null_curve" in audit else xr.Dataset()
    kept = audit[[name for name in KEPT if name in audit]].merge(curves)
    kept = kept.assign(passed=int(passed(audit)), findings=audit.attrs["findings"])
    return kept.drop_vars("trait", errors="ignore")


def _named(result: xr.Dataset, what: str) -> xr.Dataset:
    names = [*KEPT, *(f"selected_{dim}" for dim in ("extraction", "window", "layer"))]
    kept = result[names].assign(passed=int(passed(result)))
    return kept.rename({name: f"{what}_{name}" for name in kept.data_vars}).drop_vars("trait")


def _vectors(
    traces: xr.DataArray, part: xr.DataArray, paths: Mapping[str, xr.Dataset]
) -> xr.DataArray:
    fitting = select_part(traces, part, "fit")
    fitted = [
        extract(fitting.sel(window=found["selected_window"].item()), method)
        for method, found in paths.items()
    ]
    return xr.concat(fitted, "extraction", combine_attrs="drop_conflicts")


def _by_layer(
    traces: xr.DataArray,
    part: xr.DataArray,
    vectors: xr.DataArray,
    paths: Mapping[str, xr.Dataset],
    generator: np.random.Generator,
    settings: Settings,
) -> xr.Dataset:
    chosen = {d: [r[f"selected_{d}"].item() for r in paths.values()] for d in ("window", "layer")}
    sides = {name: _scores(traces, part, name, vectors, chosen) for name in ("select", "report")}
    found = cluster_bootstrap(
        sides["report"],
        _auroc,
        generator=generator,
        dim="pair",
        group=None,
        repetitions=settings.null.repetitions,
        many=True,
    ).rename(estimate="auroc", low="auroc_low", high="auroc_high")
    counts = {name: int((part == name).sum()) for name in ("fit", "select", "report")}
    return found.assign(
        auroc_select=_auroc(sides["select"]),
        window_selected=("extraction", np.array(chosen["window"], np.str_)),
        layer_selected=("extraction", chosen["layer"]),
        pairs=xr.DataArray(list(counts.values()), {"part": list(counts)}),
    ).drop_vars("trait", errors="ignore")


def _scores(
    traces: xr.DataArray,
    part: xr.DataArray,
    name: str,
    vectors: xr.DataArray,
    chosen: Mapping[str, list],
) -> xr.DataArray:
    rows = select_part(traces, part, name)
    made = []
    for method, window in zip(vectors["extraction"].values, chosen["window"], strict=True):
        vector = vectors.sel(extraction=method)
        scores = [project(side, vector) for side in pairs(rows.sel(window=window))]
        made.append(xr.concat(scores, xr.Variable("side", ["positive", "negative"])))
    return xr.concat(made, vectors["extraction"], coords="minimal", compat="override").drop_attrs()


def _auroc(scores: xr.DataArray) -> xr.DataArray:
    area = paired_auroc(scores.sel(side="positive"), scores.sel(side="negative"))
    return area.drop_vars(["side", "window"], errors="ignore")


def _instructions(
    chats: xr.DataArray, vectors: xr.DataArray, audit: xr.Dataset, settings: Settings
) -> dict[str, int]:
    layer = audit["selected_layer"].item()
    vector = vectors.sel(extraction=settings.vectors.method, layer=layer)
    scores = project(chats.sel(layer=layer), vector)
    label, number = chats["label"].values, chats["instruction"].values
    above = [
        scores.values[(number == k) & (label == 1)].mean()
        > scores.values[(number == k) & (label == 0)].mean()
        for k in np.unique(number)
    ]
    return {"chat_instructions": len(above), "chat_instructions_right": int(np.sum(above))}
