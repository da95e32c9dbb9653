"""Progress bars that a log can ask how far they are."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from tqdm import tqdm

_open: WeakSet[Bar] = WeakSet()


class Bar(tqdm):
    """tqdm's bar; among `open_bars()` until it is closed.

    >>> with Bar(total=4) as bar:
    ...     len(open_bars())
    1
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        if not self.disable and self.total:
            _open.add(self)

    def close(self) -> None:
        """End the bar."""
        _open.discard(self)
        super().close()


def open_bars() -> list[Bar]:
    """The bars that are shown now and know their total, the outermost first."""
    return sorted(list(_open), key=lambda bar: abs(bar.pos))
