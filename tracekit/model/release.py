"""What a pass leaves behind goes when it ends, not when Python's collector next runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnsight import TransformersModel
from nnsight.intervention.tracer import InterleavingTracer


class ReleasingTracer(InterleavingTracer):
    """A trace whose tensors are free as soon as it ends, except those that it saved.

    nnsight 0.8.1 leaves them in reference cycles: after `tracer.stop()`, after an edit's open-ended
    `tracer.iter`, after a backward. Tensors on a GPU are small objects to Python, so its collector
    would let them fill the card. A stored edit keeps the names that it bound last.
    """

    def __exit__(self, *error: Any) -> bool:
        edits = list(self.envoy._edits)
        with released():
            try:
                return super().__exit__(*error)
            finally:
                for edit in edits:
                    edit.lcls.shared.clear()


def unbind(edited: TransformersModel) -> None:
    """The last edit of a copy forgets the copy itself: it would keep it in a cycle.

    The edit must name the model it was made from instead, whose modules are the same.
    """
    names = edited._edits[-1].lcls
    for name in [name for name, value in names.items() if value is edited]:
        del names[name]


@contextmanager
def released() -> Iterator[None]:
    """Frees the cycles that were made inside.

    The collector is off inside: what is made there is still young at the end, and to look through
    the young alone takes a tenth of a millisecond (through everything: a quarter of a second).

    >>> with released():
    ...     cycle = []; cycle.append(cycle); del cycle
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if before:
            gc.enable()
