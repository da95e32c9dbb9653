"""Runs one library's snippets and writes their numbers; also in an interpreter of its own.

python -m experiments.benchmarks.tracing_tasks.running LIBRARY FOLDER ADAPTER OUT.npz
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.tracing_tasks.given import TASKS, arguments

MODULES = {
    "tracekit": "experiments.benchmarks.tracing_tasks.ours",
    "nnterp": "experiments.benchmarks.tracing_tasks.rivals.nnterp",
    "transformer_lens": "experiments.benchmarks.tracing_tasks.rivals.transformer_lens",
}


def source(library: str) -> Path:
    """The file of a library's snippets."""
    return Path(__file__).parents[3] / Path(*MODULES[library].split(".")).with_suffix(".py")


def run(library: str, folder: str, adapter: str) -> Iterator[tuple[str, Any]]:
    """Each task and what it gives: its values, or the error that it ends with."""
    snippets = importlib.import_module(MODULES[library])
    model = snippets.load(folder, adapter)
    wrap = getattr(snippets, "labelled", lambda _name, values: torch.tensor(values))
    for task in TASKS:
        given = {name: wrap(name, values) for name, values in arguments(task).items()}
        try:
            yield task, getattr(snippets, task)(model, adapter, **given)
        except Exception as error:  # the table says what another library cannot do
            yield task, error


def numbers(result: Any) -> Iterator[np.ndarray]:
    """The arrays of a result, in order; texts are left out."""
    if isinstance(result, torch.Tensor):
        yield result.detach().float().numpy()
    elif isinstance(result, list | tuple) and not all(isinstance(x, float) for x in result):
        for part in result:
            yield from numbers(part)
    elif np.asarray(result).dtype.kind in "fiu":
        yield np.asarray(result, np.float64)


def main() -> None:
    """Write a library's numbers as `task/n`, and what failed as `failed/task`."""
    library, folder, adapter, out = sys.argv[1:]
    torch.set_num_threads(1)
    arrays: dict[str, np.ndarray] = {}
    for task, result in run(library, folder, adapter):
        if isinstance(result, Exception):
            arrays[f"failed/{task}"] = np.array(f"{type(result).__name__}: {result}"[:200])
        else:
            arrays |= {f"{task}/{n}": array for n, array in enumerate(numbers(result))}
        # what is done stays, whatever the next does
        np.savez(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
