"""Docstring examples are tests: each finds what it takes for granted, and a folder to write in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.example_names import Names

# they take minutes, and models
collect_ignore = ["experiments/benchmarks"]


@pytest.fixture(scope="session")
def example_names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    """What examples take for granted, built on demand and once a session."""
    # here: what is no example need not import the experiments
    from tests.support.example_names import Names

    return Names(tmp_path_factory.mktemp("examples"))


@pytest.fixture(autouse=True)
def _example(request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]) -> None:
    """An example gets the names that it uses, and none that its own module defines."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
        doctest_namespace.clear()
        names = request.getfixturevalue("example_names")
        doctest_namespace.update(names.used(request.node.dtest))
