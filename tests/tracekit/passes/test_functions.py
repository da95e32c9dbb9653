"""Names of functions: whatever they compute with (source and bound values) is in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.support.site_functions import name, part, scaled

SCALE, TABLE = 2.0, {"keys": [1, 2], "values": (None, "x")}


def by_global(block: Any) -> Any:
    return block.mlp.output * SCALE + len(TABLE)


def helper(value: Any) -> Any:
    return value * SCALE


def by_helper(block: Any) -> Any:
    return helper(block.mlp.output)


def countdown(value: Any, left: int = 2) -> Any:
    return value if left == 0 else countdown(value, left - 1)


def times(factor: float) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def inner(block: Any) -> Any:
            return function(block) * factor

        return inner

    return decorate


@times(2.0)
def doubled(block: Any) -> Any:
    return block.mlp.output


@times(3.0)
def tripled(block: Any) -> Any:
    return block.mlp.output


tripled.__name__ = "doubled"


@dataclass
class Probe:
    direction: np.ndarray
    sign: int = 1
    offset = 0.5

    def __call__(self, block: Any) -> Any:
        return self.read(block) * self.sign

    def read(self, block: Any) -> Any:
        return block.mlp.output @ torch.as_tensor(self.direction) + self.offset


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def read(self, block: Any) -> Any:
        return block.mlp.output * self.factor


def two_defaults() -> list[Any]:
    return [lambda block, k=k: block.mlp.output * k for k in (1, 2)]


def one_line() -> list[Any]:
    return [lambda b: b.mlp.output, lambda b: b.attn.output]


def default(value: float) -> Any:
    def site(block: Any, *, k: float = value) -> Any:
        return block.mlp.output * k

    return site


DIFFERENT = {
    "closure": (lambda: scaled(1.0), lambda: scaled(2.0)),
    "a number's type": (lambda: scaled(1), lambda: scaled(True)),
    "an array": (lambda: scaled(np.ones(3)), lambda: scaled(np.array([1, 1, 1.001]))),
    "a tensor": (lambda: scaled(torch.ones(3)), lambda: scaled(torch.ones(3, 1))),
    "labels": (
        lambda: scaled(xr.DataArray([1.0], dims="dim")),
        lambda: scaled(xr.DataArray([1.0], dims="dim", coords={"layer": 3})),
    ),
    "nested": (lambda: scaled({"a": [1, (2, {3})]}), lambda: scaled({"a": [1, (2, {4})]})),
    "a function in a closure": (lambda: scaled(scaled(1)), lambda: scaled(scaled(2))),
    "defaults": (lambda: two_defaults()[0], lambda: two_defaults()[1]),
    "keyword defaults": (lambda: default(1.0), lambda: default(2.0)),
    "partials": (lambda: functools.partial(part, factor=1.0), lambda: functools.partial(part)),
    "arguments": (lambda: functools.partial(part, 1), lambda: functools.partial(part, 2)),
    "objects": (lambda: Probe(np.ones(2)), lambda: Probe(np.ones(2), sign=-1)),
    "arrays of objects": (lambda: Probe(np.ones(2)), lambda: Probe(np.zeros(2))),
    "bound methods": (lambda: Slotted(1.0).read, lambda: Slotted(2.0).read),
    "decorators": (lambda: doubled, lambda: tripled),
    "modules": (
        lambda: scaled(torch.nn.Linear(2, 2, bias=False)),
        lambda: scaled(torch.nn.Linear(2, 2, bias=False)),
    ),
    "code": (lambda: lambda b: b.attn.q_proj.output, lambda: lambda b: b.attn.k_proj.output),
    "one line": (lambda: one_line()[0], lambda: one_line()[1]),
    "library": (lambda: torch.amax, lambda: torch.amin),
    "library methods": (lambda: torch.Tensor.mean, lambda: torch.Tensor.sum),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_computes_something_else_has_another_name(kind: str) -> None:
    one, other = (make() for make in DIFFERENT[kind])
    assert name(one) != name(other)
    assert name(one) == name(one)


def test_what_computes_the_same_has_the_same_name() -> None:
    for make, _ in DIFFERENT.values():
        if make is not DIFFERENT["modules"][0]:
            assert name(make()) == name(make())
    spaced = lambda block: (
        block.mlp.output  # a comment
    )
    assert name(spaced) == name(lambda block: block.mlp.output)


def test_globals_count_and_those_of_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [name(by_global), name(by_helper), name(part), name(countdown)]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    after = [name(by_global), name(by_helper), name(part), name(countdown)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
    monkeypatch.setitem(TABLE, "keys", [1])
    assert name(by_global) != after[0]
    monkeypatch.setattr(Probe, "offset", 1.5)
    assert name(Probe(np.ones(2))) != name_of_first_probe()


def name_of_first_probe() -> str:
    before, Probe.offset = Probe.offset, 0.5
    try:
        return name(Probe(np.ones(2)))
    finally:
        Probe.offset = before


# these hold on every Python version: neither bytecode nor a version's own tree is in them
GOLDEN = {
    "scaled": (lambda: scaled(2.0), "<lambda>:2d1c4cf609996e98"),
    "part": (lambda: part, "part:e4c42f822102d94a"),
    "Probe": (lambda: Probe(np.arange(2.0)), "Probe:aac67f6b8ea333d4"),
    "partial": (lambda: functools.partial(part, factor=2), "part:7f100eb6357170a6"),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_names_are_those_of_other_python_versions(kind: str) -> None:
    make, expected = GOLDEN[kind]
    assert name(make()) == expected
