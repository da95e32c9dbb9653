"""Every call of the packages is type-checked; docstring examples are tests, which find their names.

Beartype comes before nnsight, which mounts `save` on object.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from tests.support.example_names import Names

PACKAGES = ("tracekit", "traits")
# of what beartype's own hook decorates, not everything can be sent to a server
SENT = ("tracekit.model", "tracekit.edits", "tracekit.passes.reduction")


def _naming_axes() -> list[str]:
    """The modules whose annotations name axes: to compare those, a call costs ten times as much."""
    here = Path(__file__).parent
    files = [path for package in PACKAGES for path in (here / package).rglob("*.py")]
    naming = [path for path in files if "from jaxtyping import" in path.read_text("utf-8")]
    return [".".join(path.relative_to(here).with_suffix("").parts) for path in naming]


install_import_hook([*SENT, *_naming_axes()], "beartype.beartype")
# not annotated variables: a module may name what it defines further down
beartype_packages(PACKAGES, conf=BeartypeConf(claw_is_pep526=False))

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
