"""An array's numbers as bytes that a page unpacks row by row, and what the bytes mean."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

# codes 1 to 255 go from the lowest to the highest value of a slice; 0 is no value
STEPS = 254
BLOCK = 1 << 24  # numbers in memory at once
# deviations from the centre at which a colour is full
FULL = 2.5


@dataclass
class Scale:
    """What the values of each slice are: one slice is one value of every dim after the token."""

    low: np.ndarray
    high: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Scale:
        """Of no values yet."""
        sums, squares, count = (np.zeros(shape) for _ in range(3))
        return cls(np.full(shape, np.inf), np.full(shape, -np.inf), sums, squares, count)

    def add(self, values: np.ndarray) -> None:
        """Take in values (prompt, token, …) without NaN and infinity."""
        there = np.isfinite(values)
        wide = np.where(there, values, 0.0).astype(np.float64)
        self.low = np.minimum(self.low, np.where(there, values, np.inf).min((0, 1)))
        self.high = np.maximum(self.high, np.where(there, values, -np.inf).max((0, 1)))
        self.sums += wide.sum((0, 1))
        self.squares += (wide**2).sum((0, 1))
        self.count += there.sum((0, 1))

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest value of each slice, and by how much a code is more than the one before."""
        low, high = (np.where(self.count > 0, end, 0.0) for end in (self.low, self.high))
        step = np.maximum(high - low, np.finfo(np.float32).tiny) / STEPS
        return np.asarray(low), np.asarray(step)

    def colours(self, centre: float | None) -> tuple[np.ndarray, np.ndarray]:
        """The value without colour (default: the mean), and how far from it a colour is full."""
        count = np.maximum(self.count, 1)
        middle = self.sums / count if centre is None else np.full(self.count.shape, float(centre))
        square = self.squares / count - 2 * middle * self.sums / count + middle**2
        reach = FULL * np.sqrt(np.maximum(square, 0.0))
        return np.asarray(middle), np.where(reach > 0, reach, 1.0)


def blocks(array: xr.DataArray) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of (prompt, token, …) that are in memory together, and their values."""
    size = max(1, BLOCK // max(1, math.prod(array.shape[1:])))
    for start in range(0, array.shape[0], size):
        rows = slice(start, start + size)
        yield rows, np.asarray(array[rows].values, np.float32)


def packed(array: xr.DataArray, there: np.ndarray, scale: Scale) -> Iterator[str]:
    """Each row's codes of the tokens that are there, as base64, in the order (slice, token)."""
    low, step = scale.ends()
    for rows, values in blocks(array):
        with np.errstate(invalid="ignore"):
            codes = np.clip(np.rint((values - low) / step) + 1, 1, STEPS + 1)
        whole = np.where(np.isfinite(values), codes, 0).astype(np.uint8)
        for here, kept in zip(whole, there[rows], strict=True):
            yield base64.b64encode(np.moveaxis(here[kept], 0, -1).tobytes()).decode()


def words(array: xr.DataArray, there: np.ndarray, row: int) -> dict[str, Any]:
    """A row's tokens as text, their labels (the first alone, if they count on), and its roles."""
    kept = there[row]
    labels = array["token"].values[kept].tolist()
    counts_on = labels == list(range(labels[0], labels[0] + len(labels))) if labels else True
    made = {
        "tokens": _of(array, "token_text")[row, kept].astype(str).tolist(),
        "labels": labels[:1] if counts_on else labels,
    }
    if "role" in array.coords:
        roles = itertools.groupby(_of(array, "role")[row, kept].astype(str).tolist())
        made["roles"] = [[role, sum(1 for _ in same)] for role, same in roles]
    return made


def _of(array: xr.DataArray, name: str) -> np.ndarray:
    values: np.ndarray = array[name].transpose("prompt", "token").values
    return values
