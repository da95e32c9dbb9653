"""Answers whose saved numbers are not finite: no statistic has them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from tracekit.errors import InputError

LARGEST = 1e15  # the square of a larger one leaves single precision


def without_numbers(folder: Path) -> dict[str, str]:
    """The id of each answer that some arm has no finite number of, and the first such file.

    An arm without it cannot be compared there, so that no arm has it.
    """
    there = Run(folder)
    by_answer = [path for path in (there.means, there.logprobs) if path.is_file()]
    paths = [*there.all_projections, *by_answer]
    where: dict[str, str] = {}
    for path in paths:
        state = path.stat()
        for name in _of_file(path, state.st_mtime_ns, state.st_size):
            where.setdefault(name, path.relative_to(folder).as_posix())
    return where


def with_numbers(array: xr.Dataset, folder: Path) -> xr.Dataset:
    """Without the answers that have no finite numbers; the same array where all have.

    Errors: `ValueError` where none is left.
    """
    where = without_numbers(folder)
    bad = [name for name in array["prompt"].values.astype(str) if name in where]
    if bad and len(bad) == array.sizes["prompt"]:
        raise InputError(
            f"The numbers of {str(folder)!r} were asked for; not one of {len(bad)} answers is "
            f"finite in every arm (the first is not in {where[bad[0]]!r}). Run again in a wider "
            "dtype, such as --dtype float32."
        )
    return array.drop_sel(prompt=bad) if bad else array


@lru_cache(maxsize=256)
def _of_file(path: Path, changed: int, size: int) -> tuple[str, ...]:
    whole = tk.open(path)
    whole = whole.to_dataset(name="values") if isinstance(whole, xr.DataArray) else whole
    names = whole["prompt"].values.astype(str)
    good = np.ones(len(names), bool)
    for array in whole.data_vars.values():
        good &= _finite(array)
    return tuple(names[~good].tolist())


def _finite(array: xr.DataArray) -> np.ndarray:
    others = [dim for dim in array.dims if dim != "prompt"]
    hole = array.isnull()
    if "token_id" in array.coords:
        hole = hole & (array["token_id"] < 0)
    else:
        # an answer ends before the longest does
        hole = hole & ~hole.all("token") if "token" in array.dims else hole & False
    return (hole | (np.abs(array) < LARGEST)).all(others).values
