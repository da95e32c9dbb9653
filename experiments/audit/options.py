"""Command lines whose mistakes are one line: bad options, bad paths, a disk that is full."""

from __future__ import annotations

import argparse
import errno
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tracekit.errors import InputError
from traits.contrast_sets.judge import without_credentials

ADVICE = {
    errno.ENOSPC: "Make room, or give --out on a larger disk.",
    errno.EDQUOT: "Make room, or give --out on a larger disk.",
    errno.EROFS: "Give --out on a disk that can be written.",
    errno.EACCES: "Give a path that you may read and write.",
    errno.EPERM: "Give a path that you may read and write.",
    errno.EISDIR: "A file is due there, and it is a folder.",
    errno.ENOTDIR: "A folder is due there, and a part of the path is a file.",
    errno.EEXIST: "A folder is due there, and it is a file.",
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.EMFILE: "Allow more open files (ulimit -n).",
}

WINDOW = "the first and the last layer kept in full: 45-55 or 45,55"
RANGE = re.compile(r"(\d+)-(\d+)")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are an `InputError`, with `--debug`; its text is shown as written."""

    def __init__(self, *given: Any, **more: Any) -> None:
        shown = {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*given, **{**shown, **more})
        self.add_argument("--debug", action="store_true", help="show an error's traceback")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with its usage."""
        raise InputError(f"{message}. {self.prog} --help says what there is.")


def exit_code(
    program: str, arguments: Sequence[str], work: Callable[[Sequence[str]], int | None]
) -> int:
    """Do a command's work; its exit code, or 2 with one line on stderr.

    One line for bad input (`InputError`) and for what the operating system says of a path or a
    disk; `--debug` lets those through too. Any other exception is a bug and goes on.

    >>> exit_code("x", [], lambda _: None)
    0
    """
    try:
        return work(arguments) or 0
    except (InputError, OSError) as error:
        if "--debug" in arguments:
            raise
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return 2


def one_line(error: BaseException) -> str:
    """What a command says of an error: one line, without credentials.

    >>> one_line(PermissionError(13, "Permission denied", "runs/x"))
    "'runs/x' cannot be used: Permission denied. Give a path that you may read and write."
    """
    if isinstance(error, OSError) and error.errno is not None:
        place = repr(str(error.filename)) if error.filename else "A file"
        advice = ADVICE.get(error.errno, "Mend the path, or give another --out.")
        said = f"{place} cannot be used: {error.strerror}. {advice}"
    else:
        said = str(error.args[0] if error.args else error)
    return without_credentials(" ".join(said.split()))


def names(text: str) -> list[str]:
    """Names between commas; none of an empty text.

    >>> names("a,b")
    ['a', 'b']
    """
    return text.split(",") if text else []


def numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; whole numbers are due, such as 15,22"
        ) from None


def window(text: str) -> list[int]:
    """The first and the last of a range of layers, 45-55 or 45,55.

    >>> window("45-55")
    [45, 55]
    """
    ends = RANGE.fullmatch(text)
    return [int(end) for end in ends.groups()] if ends else numbers(text)


def layers(text: str) -> list[int]:
    """Layers and ranges of them between commas.

    >>> layers("10,20-22")
    [10, 20, 21, 22]
    """
    ends = [window(part) for part in text.split(",")]
    if any(pair[0] > pair[-1] for pair in ends):
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; a range goes from the lower to the higher layer, such as 10-20"
        )
    return [layer for pair in ends for layer in range(pair[0], pair[-1] + 1)]


def floats(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; numbers are due, such as -0.3,0.15"
        ) from None


def positive(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a number above 0 is due")
    return value


def number(text: str) -> float:
    """A finite number, 0 or above."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a finite number from 0 is due")
    return value


def count(text: str) -> int:
    """A whole number from 1 to a million."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a whole number from 1 is due")
    return value
