"""What is damaged: a name, the share of cases it gets, and its cases without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.benchmarks.fuzz.outcome import Case
from experiments.benchmarks.fuzz.surfaces import (
    adapters,
    arrays,
    contrast,
    numbers,
    page,
    prompts,
    settings,
    shards,
    vectors,
)


@dataclass(frozen=True)
class Surface:
    """`cases` draws damaged inputs in a folder of its own, one after another."""

    cases: Callable[[np.random.Generator, Path], Iterator[Case]]
    weight: float


SURFACES: Mapping[str, Surface] = {
    "prompts": Surface(prompts.cases, 2.0),
    "contrast sets": Surface(contrast.cases, 1.0),
    "presets": Surface(settings.presets, 1.5),
    "settings": Surface(settings.options, 1.0),
    "netCDF": Surface(arrays.cases, 1.5),
    "shards": Surface(shards.cases, 0.35),
    "manifests": Surface(shards.manifests, 0.35),
    "adapters": Surface(adapters.cases, 0.12),
    "vector files": Surface(vectors.cases, 2.0),
    "statistics": Surface(numbers.cases, 2.0),
    "page": Surface(page.cases, 0.02),
}
