"""The rows of one layer that are fitted on: in memory where they fit, else read at every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from traits.probes.fitting.rows import Source

Dims = Float[np.ndarray, " dim"]
Block = Float[np.ndarray, "row dim"]
# bytes of rows that stay in memory, and rows that are worked on at a time
MEMORY, BLOCK = 1 << 30, 2048


@dataclass(frozen=True)
class Table:
    """Rows (row, dim), float32, in order; `whole` is `None` where they are read block by block."""

    count: int
    dim: int
    whole: Block | None
    read: Callable[[], Iterator[Block]]

    def blocks(self) -> Iterator[tuple[slice, Block]]:
        """Blocks of rows, and where they stand."""
        at = 0
        parts = self.read() if self.whole is None else iter([self.whole])
        for part in parts:
            for first in range(0, len(part), BLOCK):
                some = part[first : first + BLOCK]
                yield slice(at, at + len(some)), some
                at += len(some)

    def take(self, kept: Bool[np.ndarray, " row"], *, copy: bool = True) -> Table:
        """Some of the rows, picked at each pass without `copy`; this table where it is all."""
        if kept.all():
            return self
        if self.whole is not None and copy:
            return of_array(self.whole[kept])

        def read() -> Iterator[Block]:
            for where, block in self.blocks():
                yield block[kept[where]]

        return replace(self, count=int(kept.sum()), whole=None, read=read)

    def moments(self) -> tuple[Dims, Dims]:
        """The mean of the rows and their standard deviation (1 where there is none): two passes."""
        mean = sum(block.sum(0, dtype=np.float64) for _, block in self.blocks()) / self.count
        square = sum(np.square(block - mean, dtype=np.float64).sum(0) for _, block in self.blocks())
        scale = np.sqrt(square / self.count)
        # the mean of equal numbers differs from them by a rounding
        scale[scale <= 1e-12 * np.abs(mean)] = 1.0
        return mean, scale

    def standardised(self, mean: Dims, scale: Dims) -> Table:
        """The rows less `mean` and over `scale`, in the place of those that are in memory."""
        if self.whole is None:

            def read() -> Iterator[Block]:
                for _, block in self.blocks():
                    yield ((block - mean) / scale).astype(np.float32)

            return replace(self, read=read)
        for _, block in self.blocks():
            block[...] = (block - mean) / scale
        return self


def of_array(values: Block) -> Table:
    """A table of rows that are in memory.

    >>> of_array(np.ones((3, 2))).moments()[1].tolist()
    [1.0, 1.0]
    """
    return Table(len(values), values.shape[1], values, lambda: iter([values]))


def of_tokens(
    held: Source,
    layer: int,
    rows: Int[np.ndarray, " row"],
    kept: Bool[np.ndarray, "prompt token"],
    memory: int | None = None,
) -> Table:
    """The tokens of `rows` that are `kept`, each a row, in order; `memory` is MEMORY by default."""
    count, dim = int(kept[rows].sum()), held.traces.sizes["dim"]

    def read() -> Iterator[Block]:
        for some, values in held.blocks(layer, rows):
            yield values[kept[some]]

    table = Table(count, dim, None, read)
    if count * dim * 4 > (MEMORY if memory is None else memory):
        return table
    whole = np.empty((count, dim), np.float32)
    for where, block in table.blocks():
        whole[where] = block
    return of_array(whole)
