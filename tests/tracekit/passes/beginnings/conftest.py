"""What goes through the tiny model, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from experiments.benchmarks.measuring import beginnings


@pytest.fixture
def counted(tiny_llama: Any) -> Iterator[list[int]]:
    """The columns × rows that go through the model, forward by forward."""
    with beginnings.counted(tiny_llama) as seen:
        yield seen
