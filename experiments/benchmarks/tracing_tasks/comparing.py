"""The same quantity out of two libraries' results, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.tracing_tasks.given import DOSES

Arrays = Sequence[np.ndarray]


def ours(task: str, result: Any) -> list[np.ndarray]:
    """What a task here gives, in the order of dims that hooks have."""
    if task == "patterns_and_units":
        pattern, units = result
        return [pattern.transpose("head", "query", "key").fillna(0).values, units.values]
    if task == "dose_response":
        own = result.sel(prompt=result.direction == "own")
        return [own.sortby("coefficient").values]
    if task == "divergence":
        return [result.values[1:]]  # of the second token on
    if task == "top_token":
        return [result[0].values]
    parts = result if isinstance(result, list | tuple) else [result]
    if all(isinstance(part, float) for part in parts):
        return [np.array(parts)]
    return [np.asarray(part) for part in parts]


def theirs(library: str, task: str, arrays: Arrays) -> list[np.ndarray]:
    """A rival's arrays of the same quantities."""
    if task == "dose_response":
        return [arrays[0][:: len(arrays[0]) // len(DOSES)]]
    if task == "divergence":
        return [arrays[0][:-1]]
    if task in ("head_ablation", "strengths"):
        return [np.array([float(one) for one in arrays])]
    if task == "patching" and library == "transformer_lens":
        return [table[1:] for table in arrays]  # before block n + 1: after block n
    return list(arrays)


def apart(task: str, here: Arrays, there: Arrays) -> float:
    """The largest difference, in parts of the largest value; NaN of unlike shapes."""
    if task == "patching":
        here = [table[: len(other)] for table, other in zip(here, there, strict=True)]
    shapes = [[array.shape for array in side] for side in (here, there)]
    if shapes[0] != shapes[1]:
        return float("nan")
    pairs = zip(here, there, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def read(stored: Mapping[str, np.ndarray], task: str) -> list[np.ndarray]:
    """A task's arrays out of a file of `running`."""
    names = [name for name in stored if name.startswith(f"{task}/")]
    return [stored[name] for name in sorted(names, key=lambda name: int(name.split("/")[1]))]
