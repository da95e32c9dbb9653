"""A process that does a piece of work and meets a signal, and what came of it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

OUTCOMES = ("identical", "finished before", "poisoned", "different", "failed", "state bent")
WRONG = OUTCOMES[3:]
AS_IT_WAS, POISONED, BENT = 10, 11, 12
# seconds after which a process says where it hangs, and ends
HANGS = 240


@dataclass(frozen=True)
class Work:
    """`run` does it in a folder that `start` made; `held` is what it left there.

    `state` says, in a process whose work was interrupted, how its model is: an exit status.
    """

    start: Callable[[Path], None]
    run: Callable[[Path], None]
    held: Callable[[Path], str]
    state: Callable[[], int] = lambda: AS_IT_WAS


def trial(work: Work, name: str, moment: float, path: Path, expected: str) -> str:
    """One piece of work met by one signal, then done again: what came of it."""
    work.start(path)
    child = forked(lambda: work.run(path), work.state)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, getattr(signal, name))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == BENT:
        return "state bent"
    again = forked(lambda: _same(work, path, expected))
    code = os.waitstatus_to_exitcode(os.waitpid(again, 0)[1])
    if code:
        return "different" if code == 2 else "failed"
    if status == POISONED:
        return "poisoned"
    return "finished before" if status == 0 else "identical"


def _same(work: Work, path: Path, expected: str) -> None:
    work.run(path)
    if work.held(path) != expected:
        os._exit(2)


def forked(run: Callable[[], Any], state: Callable[[], int] = lambda: AS_IT_WAS) -> int:
    """A child that does the work, and where it is interrupted ends with `state`: its pid."""
    # a signal that comes before the child is ready waits until it is
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    try:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        # tqdm's own is shared with every fork, and one that is killed while it holds it keeps it
        tqdm.set_lock(threading.RLock())
        for name in ("SIGTERM", "SIGHUP"):  # a job in the background may have them ignored
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            run()
            os._exit(0)
        except (KeyboardInterrupt, Exception) as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # a library may answer an interrupt with an error of its own
            if not isinstance(error, KeyboardInterrupt):
                traceback.print_exc()
            os._exit(state())
    except BaseException:  # a forked process must not go on in its parent's code
        traceback.print_exc()
    os._exit(1)


def measured(work: Work, path: Path) -> tuple[str, float]:
    """What an uninterrupted run leaves, and how long it takes."""
    work.start(path)
    begun = time.monotonic()
    child = forked(lambda: work.run(path))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RuntimeError(f"{path.name} ended with {status} without any signal.")
    return work.held(path), time.monotonic() - begun
