"""What goes through the tiny model, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def counted(tiny_llama: Any) -> Iterator[list[int]]:
    """The columns × rows that go through the model, forward by forward."""
    seen: list[int] = []
    embedding = tiny_llama._module.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    yield seen
    hook.remove()
