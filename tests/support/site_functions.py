"""Sites to name, and their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracekit.model.functions.fingerprint import named


def name(value: Any) -> str:
    return named("site", value)[0]


def part(block: Any, factor: float = 1.0, *, shift: float = 0.0) -> Any:
    """Reads the MLP."""
    return block.mlp.output * factor + shift


def scaled(factor: Any) -> Callable[[Any], Any]:
    return lambda block: block.mlp.output * factor
