"""Damage to bytes, and to tables of plain values."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

# what a hand, a script or a spreadsheet may leave in a field
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf"), -0.0),
    *("", " ", "0", "nan", "None", "a\0b", "\ud800", "é", "\u202e", "/", "../x", "\\", "a" * 3000),
    *([], [1], ["a", 2], {}, {"a": 1}, [[]], {"": None}),
)
NAMES = (
    *("id", "text", "messages", "group", "bias", "prompt", "token", "layer", "dim", "role", "a b"),
    *("a/b", "", "prompt_length", "trait", "arm", "norm", "label", "kind", "x", "é", "token_id"),
    *("system", "tool_calls", "response", "text ", "1", "_x", "string8", "coefficient"),
)


def flipped(data: bytes, rng: np.random.Generator, count: int = 1) -> bytes:
    """The bytes with `count` of them changed."""
    changed = bytearray(data)
    for place in rng.integers(0, len(changed), count):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The bytes after one accident, and its name."""
    kind = str(rng.choice(["flip", "flips", "cut", "zeros", "doubled", "inserted", "emptied"]))
    start, end = sorted(rng.integers(0, max(len(data), 1), 2).tolist())
    if kind == "flip":
        return kind, flipped(data, rng)
    if kind == "flips":
        return kind, flipped(data, rng, int(rng.integers(2, 40)))
    if kind == "cut":
        return kind, data[:end]
    if kind == "zeros":
        return kind, data[:start] + bytes(end - start) + data[end:]
    if kind == "doubled":
        return kind, data[:end] + data[start:]
    if kind == "inserted":
        return kind, data[:start] + rng.bytes(int(rng.integers(1, 50))) + data[start:]
    return kind, b""


def altered(tree: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """A table of plain values (JSON) with one place changed, and what was done."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    holder, key = places[int(rng.integers(len(places)))]
    kind = str(rng.choice(["odd", "odd", "gone", "renamed", "doubled", "wrapped"]))
    if kind == "odd":
        holder[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
        return f"{key!r} is {str(holder[key])[:20]!r}", tree
    if kind == "gone":
        del holder[key]
    elif kind == "renamed" and isinstance(holder, dict):
        holder[str(rng.choice(NAMES))] = holder.pop(key)
    elif kind == "doubled" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = [holder[key]]
    return f"{key!r} {kind}", tree


def _places(tree: Any) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list) and value:
            yield from _places(value)
