"""One damaged input, and what came of it."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.errors import InputError

ROOT = Path(__file__).parents[3]
PACKAGES = tuple(str(ROOT / name) for name in ("tracekit", "traits", "experiments"))
KINDS = (
    "right",
    "refused in one line",
    "library message",
    "traceback",
    "hang",
    "silently wrong",
    "state lost",
    "flip without checksum",
)
# what must not happen
WRONG = ("traceback", "hang", "silently wrong", "state lost")
FOR_THE_USER = (ValueError, TypeError, KeyError, OSError)
OF_FILES = (FileNotFoundError, FileExistsError, IsADirectoryError)
LONGEST = 1000  # the longest names all 26 traits there are


@dataclass(frozen=True)
class Case:
    """`run` reads the input; `right` says whether what it gave is true, by other means.

    `intact` says afterwards that what was there before is as it was. `checked=False`: a change
    that no checksum covers (another tool's file), counted apart when it passes unseen.
    """

    what: str
    run: Callable[[], Any]
    right: Callable[[Any], bool]
    intact: Callable[[], bool] = lambda: True
    checked: bool = True
    seconds: int = 30


class Hang(BaseException):
    """Raised by the alarm; no code catches it."""


def outcome(case: Case) -> tuple[str, str]:
    """The kind of outcome, and the words of an error or of what was wrong."""
    kind, words = _ran(case)
    if kind != "hang" and not case.intact():
        return "state lost", words
    if kind == "silently wrong" and not case.checked:
        return "flip without checksum", words
    return kind, words


def _ran(case: Case) -> tuple[str, str]:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(case.seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = case.run()
            right = case.right(value)
        return ("right", "") if right else ("silently wrong", repr(value)[:200])
    except Hang:
        return "hang", f"longer than {case.seconds} s"
    except FOR_THE_USER as error:
        return _refusal(error)
    except Exception as error:
        return "traceback", _words(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _refusal(error: Exception) -> tuple[str, str]:
    words = str(error.args[0] if error.args else error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if _is_refusal(error):
        if 20 <= len(words) <= LONGEST:
            return "refused in one line", words
        return "library message", f"{len(words)} characters: {words[:200]}"
    if frame.filename.startswith(PACKAGES) or isinstance(error, KeyError):
        # a library's own words are a library message; an error nobody raised is a bug of ours
        return "traceback", _words(error)
    return "library message", _words(error)


def _is_refusal(error: Exception) -> bool:
    # of a file that is not there only the system's own errors have a number
    return isinstance(error, InputError) or (isinstance(error, OF_FILES) and error.errno is None)


def _words(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGES)]
    place = ours[-1] if ours else frame
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())[:160]} "
        f"[{Path(place.filename).name}:{place.lineno} → {Path(frame.filename).name}]"
    )
