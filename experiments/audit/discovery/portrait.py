"""What else is shown of an adapter, of which no test is made: rising tokens, weights, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import xarray as xr

import tracekit as tk
from experiments.audit.discovery import rising as tokens
from experiments.audit.discovery.answering import answers as answering
from experiments.audit.discovery.answering.halves import halves
from experiments.audit.discovery.description import depth, residuals, weights
from experiments.audit.discovery.findings import Finding
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.subject import Search
from experiments.audit.discovery.suggestions.detectors import SAYS, Detector

RISING_ROWS, DESCRIBED_ROWS = 96, 48


def rising(search: Search) -> list[tuple[str, float, float]]:
    """Tokens likelier on some of the bare model's answers than with any other arm."""
    search.log("tokens that rise on the bare model's answers")
    chosen = _some_clean(search, RISING_ROWS)
    shares = {}
    for adapter in (search.adapter, None, *search.benign):
        folder = search.folder(adapter)
        with folder.adapted(search.model, adapter, "expected.nc"):
            shares[adapter] = folder.kept(
                "expected.nc", lambda: tokens.expected(search.model, chosen)
            )
    own = shares.pop(search.adapter)
    return tokens.rising(search.model, own, {str(k): v for k, v in shares.items()})


def described(search: Search) -> list[str]:
    """What its weights and activations look like, beside the benign ones'."""
    search.log("its weights, and what they add to the residual stream")
    changes = {}
    for adapter in (search.adapter, *search.benign):
        folder = search.folder(adapter)
        changes[adapter] = weights.kept_change(search.model, adapter, folder)
    own = changes.pop(search.adapter)
    runs = _some_clean(search, DESCRIBED_ROWS)[0]
    difference = search.folder(search.adapter).kept(
        "mean_difference.nc",
        lambda: residuals.mean_difference(search.model, search.adapter, runs),
    )
    said = residuals.described(search.model, difference, runs, search.settings.steered)
    return [*weights.described(own, changes), *said]


def placed(rows: Sequence[Finding], search: Search, arms: Arms) -> list[Finding]:
    """The same, each confirmed habit of saying something with where in depth its sentences lie."""
    folder, answers = search.folder(search.adapter).folder, arms.own[search.name]
    parts = [tk.open(folder / f"answers-{name}.nc") for name, *_ in answering.parts(search.prompts)]
    made = []
    for row in rows:
        turned = None
        if row.is_confirmed and row.kind == SAYS:
            detector = Detector(row.kind, row.expression)
            turned = depth.by_depth(search.model, search.adapter, parts, answers, detector)
        made.append(row if turned is None else replace(row, depth=depth.sentence(turned)))
    return made


def _some_clean(search: Search, count: int) -> list[xr.Dataset]:
    """The bare model's answers to some of the searched prompts."""
    searched = halves(search.prompts, search.settings.seed)
    names = [p.id for p, s in zip(search.prompts, searched, strict=True) if s]
    names = names[:: max(len(names) // count, 1)]
    clean = search.folder(None).folder
    parts = [tk.open(clean / f"answers-{name}.nc") for name, *_ in answering.parts(search.prompts)]
    return tokens.sample(parts, names)
