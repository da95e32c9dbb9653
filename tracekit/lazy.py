"""A package's public names, each imported at its first use.

They stand in the package's `__init__.pyi`, which type checkers and editors read as it is.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def attach(package: str, file: str) -> list[str]:
    """Give a package the names that its stub imports, each at its first use; its `__all__`.

    A name that was used once lies in the package from then on, as if it had been imported there.

    >>> "capture" in attach(tk.__name__, tk.__file__)
    True
    """
    places = _places(Path(file).with_suffix(".pyi"))
    # on the module's class, not in `__getattr__`, which comes last: nnsight mounts a `save` on
    # every object, and a module would have that one
    names = {name: _Name(package, name, *place) for name, place in places.items()}
    kind = type("Package", (ModuleType,), {**names, "__dir__": _listing(places)})
    sys.modules[package].__class__ = kind
    return sorted(places)


class _Name:
    """A name of a module until it is used: what lies in the module itself goes before it."""

    def __init__(self, package: str, name: str, module: str, name_there: str) -> None:
        self._package, self._name = package, name
        self._place = (module, name_there)

    def __get__(self, module: ModuleType | None, kind: type) -> Any:
        value = _imported(*self._place)
        setattr(sys.modules[self._package], self._name, value)
        return value


def _listing(places: Mapping[str, Any]) -> Any:
    return lambda module: sorted({*vars(module), *places})


def _places(stub: Path) -> dict[str, tuple[str, str]]:
    """The module that each name of a stub is imported from, and its name there."""
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _imported(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    if name in vars(found):
        return vars(found)[name]
    # not by getattr first: nnsight mounts names on every object
    if hasattr(found, "__path__") and importlib.util.find_spec(f"{module}.{name}"):
        return importlib.import_module(f"{module}.{name}")
    return getattr(found, name)  # a package that is lazy itself
