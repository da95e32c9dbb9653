"""What comes from an installed package, and so is known by its dotted name."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import sys
import sysconfig
import types
from typing import Any

import numpy as np


def module_of(value: Any) -> str:
    """The name of the module that a function or class is from."""
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    own = getattr(value, "__module__", None) or getattr(owner, "__module__", None)
    return str(own or getattr(owner, "__name__", type(value).__module__))


def qualified(value: Any) -> str:
    """The name within its module."""
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))


def is_library(value: Any) -> bool:
    """Whether a module, function or class is an installed package's (or Python's) own."""
    if isinstance(value, types.ModuleType):
        file = getattr(value, "__file__", None) or next(iter(getattr(value, "__path__", [])), None)
        return file is None or _installed(file)
    if isinstance(value, types.FunctionType):
        # not by __module__: a wrapper claims that of what it wraps
        return _installed(value.__code__.co_filename) and _resolves(value)
    if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType | type)
    if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType | np.ufunc):
        return True
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        return (
            module is not None
            and module.__name__ != "__main__"
            and is_library(module)
            and _resolves(value)
        )
    return False


def _resolves(value: Any) -> bool:
    found: Any = sys.modules.get(value.__module__)
    for part in qualified(value).split("."):
        found = getattr(found, part, None)
    return found is value


def is_library_name(module: str) -> bool:
    """Whether a module of this name is an installed package's (or Python's) own."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and (not spec.has_location or _installed(str(spec.origin)))


@functools.cache
def _installed(file: str) -> bool:
    path = pathlib.Path(file)
    if {"site-packages", "dist-packages"} & set(path.parts) or file.startswith("<frozen "):
        return True
    return path.resolve().is_relative_to(pathlib.Path(sysconfig.get_paths()["stdlib"]).resolve())
