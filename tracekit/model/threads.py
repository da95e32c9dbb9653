"""One pass at a time in a process: threads wait for each other's forwards and loads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# one for all models: sampling draws from torch's one generator, and transformers sets torch's
# default type while it loads
_lock = threading.RLock()
_depth = 0


@contextlib.contextmanager
def one_at_a_time() -> Iterator[bool]:
    """Wait until no other thread runs or changes a model; gives whether this is the outermost.

    >>> with one_at_a_time() as outermost:
    ...     outermost
    True
    """
    global _depth
    with _lock:
        before = _depth
        try:
            _depth = before + 1
            yield before == 0
        finally:
            _depth = before
