"""What was asked for cannot be done: one class, whose words are for the user."""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """Bad input: a value, an option or a file that says what was asked, found, and to be done.

    A `ValueError`, so that code which catches that catches this. A command prints it as one line
    and exits with 2; any other exception is a bug, and shows its traceback.

    >>> try:
    ...     tk.encode(model, [])
    ... except InputError as error:
    ...     print(error)
    encode was given no prompts; give at least one.
    """

    # KeyError's own would quote the message
    __str__ = Exception.__str__


class InputTypeError(InputError, TypeError):
    """Bad input of another type than is due; a `TypeError` too."""


class InputKeyError(InputError, KeyError):
    """A name that is not among those there are; a `KeyError` too."""


def brief(value: Any) -> str:
    """A value as an error shows it: an array by its type and shape."""
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}>"
    return repr(value)
