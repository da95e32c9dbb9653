"""A package's public names, each imported at its first use.

They stand in the package's `__init__.pyi`, which type checkers and editors read as it is.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`, from the imports of its stub.

    A name that was used once lies in the package from then on, as if it had been imported there.

    Errors: `AttributeError` for a name that the stub does not list.

    >>> __getattr__, __dir__, __all__ = attach(tk.__name__, tk.__file__)
    >>> "capture" in __all__
    True
    """
    places = _places(Path(file).with_suffix(".pyi"))

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = _imported(*places[name])
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *places}), sorted(places)


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
