"""What is known of a model once it is settled: proved and fingerprinted, at its first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from tracekit.model.threads import one_at_a_time

Value = TypeVar("Value")


class Settling:
    """Something that is settled once, by `pending`, before the first value of it leaves."""

    pending: Callable[[], bool] | None = None
    settling: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether nothing is settled yet, nor about to be."""
        return self.pending is not None and not self.settling

    def settle(self) -> bool:
        """Run what is pending; whether that proved anything. What raises is pending still."""
        if self.pending is None:
            return False
        with one_at_a_time():
            if self.pending is None or self.settling:
                return False
            try:
                self.settling = True
                proved = self.pending()
                self.pending = None
            finally:
                self.settling = False
        return proved


class Settled(Generic[Value]):
    """A field whose owner is settled before it is read."""

    def __init__(self, first: Callable[[], Value]) -> None:
        self._first = first

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, about: None, kind: type) -> Settled[Value]: ...

    @overload
    def __get__(self, about: Settling, kind: type | None = None) -> Value: ...

    def __get__(self, about: Settling | None, kind: Any = None) -> Settled[Value] | Value:
        if about is None:
            return self
        about.settle()
        if self._name not in about.__dict__:
            about.__dict__[self._name] = self._first()
        value: Value = about.__dict__[self._name]
        return value

    def __set__(self, about: Settling, value: Value) -> None:
        about.__dict__[self._name] = value
