"""A function given as a site or a reduction, by a name that says all that it computes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pathlib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from tracekit.errors import InputError, InputTypeError
from tracekit.model.functions.installed import is_library, is_library_name, module_of, qualified
from tracekit.model.functions.source import attributes_of, function_text, globals_of, imports_of
from tracekit.storage.identity import digest

Named = tuple[str, Callable[..., Any]]
SCALARS = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, range, slice)
CONTAINERS = (list, tuple, set, frozenset, dict)
ATOMS = (*SCALARS, torch.dtype, torch.device, np.dtype, pathlib.PurePath)
# decorators of these look at arguments and change nothing
CHECKERS = ("jaxtyping", "beartype")


def named(what: str, value: Any, taken: tuple[str, ...] = ()) -> tuple[str, Callable[..., Any]]:
    """The name that provenance records for a function, and the function.

    A pair `(name, function)` goes by its name. A function goes by a hash of its source (layout and
    comments don't count) and of every value that is bound to it: closure, defaults, globals,
    arguments of a partial, an object's state. The name is the same in every process and Python
    version. What comes from an installed package counts by its dotted name.

    Errors: `ValueError` for a function whose source or values cannot be read, and for a name that
    is taken or no word; `TypeError` for anything else.

    >>> named("site", ("queries", lambda block: block.attn.q_proj.output))[0]
    'queries'
    """
    if isinstance(value, tuple):
        return _pair(what, value, taken)
    if not callable(value):
        raise InputTypeError(
            f"{what}={value!r} was asked for, which is a {type(value).__name__}; give a name, "
            'a function, or a pair ("name of your own", function).'
        )
    try:
        return f"{_shown(value)}:{digest(_Description().of(value, _shown(value)))}", value
    except _UnknownError as error:
        raise InputError(
            f"{what}={_shown(value)} was asked for, which must be recorded by a name that says "
            f"all it computes, and {error}. Give it a name of your own: "
            f'{what}=("name", function); another name for another function.'
        ) from error


def _pair(what: str, value: tuple[Any, ...], taken: tuple[str, ...]) -> Named:
    well = len(value) == 2 and isinstance(value[0], str) and callable(value[1])
    if not well or not re.fullmatch(r"[A-Za-z_][\w.-]*", value[0]) or value[0] in taken:
        raise InputError(
            f"{what}={value!r} was asked for; a pair is a name and a function, the name a word "
            f"(letters, digits, '_', '-', '.') other than {', '.join(taken) or 'none'}."
        )
    return value


def _shown(value: Any) -> str:
    if isinstance(value, functools.partial):
        return _shown(value.func)
    return str(getattr(value, "__name__", type(value).__name__))


class _UnknownError(Exception):
    """A value that has no form which two processes share."""


class _Description:
    """Functions and values as nested lists of plain text; what was met before is a number."""

    def __init__(self) -> None:
        # the objects are kept: a number is true only as long as its object lives
        self._met: list[Any] = []
        self._open: list[Any] = []

    def of(self, value: Any, where: str) -> Any:
        if isinstance(value, ATOMS):
            return [type(value).__name__, repr(value)]
        if isinstance(value, np.ndarray | np.generic | torch.Tensor | xr.DataArray):
            return _array(value, where)
        # equal constants are one object or two as Python likes, so containers have no number
        is_container = isinstance(value, CONTAINERS)
        before = self._open if is_container else self._met
        place = next((n for n, other in enumerate(before) if other is value), None)
        if place is not None:
            return ["met before", place]
        before.append(value)
        if is_container:
            inside = self._container(value, where)
            self._open.pop()
            return inside
        if is_library(value):
            return ["library", module_of(value), qualified(value)]
        return self._code(value, where)

    def _container(self, value: Any, where: str) -> Any:
        kind = type(value).__name__
        if isinstance(value, dict):
            pairs = [[self.of(k, where), self.of(v, f"{where}[{k!r}]")] for k, v in value.items()]
            return [kind, pairs]
        items = [self.of(item, where) for item in value]
        return [kind, sorted(items, key=repr) if isinstance(value, set | frozenset) else items]

    def _code(self, value: Any, where: str) -> Any:
        if isinstance(value, functools.partial):
            parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
            return ["partial", self._each(parts, where)]
        if isinstance(value, types.MethodType):
            parts = {"function": value.__func__, "object": value.__self__}
            return ["method", self._each(parts, where)]
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, type):
            return self._class(value, where)
        if isinstance(value, functools._lru_cache_wrapper):
            return self.of(value.__wrapped__, where)
        if isinstance(value, types.ModuleType):
            raise _UnknownError(f"{where!r} is the module {value.__name__}, passed on as a value")
        return self._instance(value, where)

    def _function(self, function: types.FunctionType, where: str) -> Any:
        if hasattr(function, "__wrapped__") and _checks_only(function):
            return self.of(function.__wrapped__, where)
        try:
            text, node = function_text(function)
        except OSError as error:
            raise _UnknownError(f"{where!r} cannot be read: {error}") from error
        own = [name for name in imports_of(node) if not is_library_name(name)]
        if own:
            raise _UnknownError(f"{where!r} imports {own[0]!r} where it runs, not above")
        bound = {
            **self._closure(function, where),
            **dict(zip(_with_defaults(function), function.__defaults__ or (), strict=False)),
            **(function.__kwdefaults__ or {}),
        }
        return [
            "function",
            text,
            self._each(bound, where),
            self._globals(function.__code__, function.__globals__, node, where),
        ]

    def _closure(self, function: types.FunctionType, where: str) -> dict[str, Any]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        try:
            return {name: cell.cell_contents for name, cell in cells}
        except ValueError as error:
            raise _UnknownError(f"{where!r} closes over a name without a value") from error

    def _globals(
        self, code: types.CodeType, space: Mapping[str, Any], node: Any, where: str
    ) -> Any:
        # a module's own name and file say where it lies, not what it does
        read = {name for name in globals_of(code) if name in space and name[:2] != "__"}
        there = {name: space[name] for name in read}
        plain = {k: v for k, v in there.items() if not isinstance(v, types.ModuleType)}
        modules = [
            [name, self._module(there[name], node, name, where)]
            for name in sorted(there.keys() - plain.keys())
        ]
        return [self._each(plain, where), modules]

    def _module(self, module: types.ModuleType, node: Any, name: str, where: str) -> Any:
        if is_library(module):
            return ["library", module.__name__]
        read = attributes_of(node, name)
        if read is None:
            raise _UnknownError(f"{where!r} passes the module {module.__name__} on as a value")
        return self._each({attribute: getattr(module, attribute) for attribute in read}, where)

    def _class(self, cls: type, where: str) -> Any:
        members = {name: _inner(member) for name, member in vars(cls).items()}
        # what @dataclass writes follows from the fields
        told = {k: v for k, v in members.items() if _tells(k, v)}
        fields = list(inspect.get_annotations(cls))
        bases = [self.of(base, where) for base in cls.__bases__]
        return ["class", bases, fields, self._each(told, f"{where}, {cls.__qualname__}")]

    def _instance(self, value: Any, where: str) -> Any:
        cls, known = type(value), isinstance(value, torch.nn.Module)
        slots = [
            name
            for base in cls.__mro__
            for name, member in vars(base).items()
            if isinstance(member, types.MemberDescriptorType)
        ]
        if (is_library(cls) and not known) or not (hasattr(value, "__dict__") or slots):
            raise _UnknownError(f"{where!r} holds a {cls.__module__}.{cls.__qualname__}")
        state = {**getattr(value, "__dict__", {})}
        state |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
        return ["instance", self.of(cls, where), self._each(state, where)]

    def _each(self, values: Mapping[str, Any], where: str) -> Any:
        return [[name, self.of(values[name], f"{where}, {name}")] for name in sorted(values)]


def _array(value: Any, where: str) -> Any:
    if isinstance(value, xr.DataArray):
        labels = {str(name): coord.variable for name, coord in value.coords.items()}
        parts = [[n, list(v.dims), _array(v.values, where)] for n, v in sorted(labels.items())]
        return ["DataArray", list(map(str, value.dims)), _array(value.values, where), parts]
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout is not torch.strided:
            raise _UnknownError(f"{where!r} is a tensor without values here")
        wide = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return ["Tensor", str(value.dtype), list(value.shape), _hash(wide)]
    if value.dtype.hasobject:
        return ["array", list(value.shape), repr(value.tolist())]
    return [type(value).__name__, value.dtype.str, list(value.shape), _hash(value)]


def _hash(values: np.ndarray | np.generic) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _with_defaults(function: types.FunctionType) -> list[str]:
    code, count = function.__code__, len(function.__defaults__ or ())
    return list(code.co_varnames[code.co_argcount - count : code.co_argcount])


def _inner(member: Any) -> Any:
    """The function within a method, property or cached property; anything else as it is."""
    for name in ("__func__", "fget", "func"):
        if isinstance(member, staticmethod | classmethod | property | functools.cached_property):
            member = getattr(member, name, member)
    return member


def _tells(name: str, member: Any) -> bool:
    """Whether a class's member says what its objects compute."""
    if isinstance(member, types.FunctionType):
        return member.__code__.co_filename != "<string>" and not name.startswith("__annotate")
    return (
        name[:2] != "__"
        and name != "_abc_impl"
        and not isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType)
    )


def _checks_only(function: types.FunctionType) -> bool:
    file = function.__code__.co_filename
    return any(f"/{name}/" in file.replace("\\", "/") or f"<@{name}(" in file for name in CHECKERS)
