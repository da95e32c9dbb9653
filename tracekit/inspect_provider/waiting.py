"""One thread for all models of a process; what waits together is answered together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import anyio
import anyio.lowlevel

# seconds for which a first request waits for others, which come one after the other
TOGETHER = 0.01
# a block of `tk.adapter` belongs to its thread: whoever makes or runs a model holds this
alone = threading.Lock()


@runtime_checkable
class Serving(Protocol):
    """What answers: several requests of one key at once."""

    def key(self, asked: Any) -> Hashable:
        """Equal for requests that may be answered together; raises for one that cannot be."""

    def answers(self, asked: Sequence[Any]) -> Sequence[Any]:
        """An answer to each."""


@dataclass
class _Ticket:
    serving: Serving
    asked: Any
    loop: Any
    done: anyio.Event = field(default_factory=anyio.Event)
    left: bool = False
    answer: Any = None
    error: BaseException | None = None


_tickets: queue.SimpleQueue[_Ticket] = queue.SimpleQueue()
_start = threading.Lock()
_thread: threading.Thread | None = None


async def answered(serving: Serving, asked: Any) -> Any:
    """The answer to one request, from the thread that runs models; of any event loop.

    Errors: those of `serving`, for all requests that were answered together.
    """
    _require_thread()
    ticket = _Ticket(serving, asked, anyio.lowlevel.current_token())
    _tickets.put(ticket)
    try:
        await ticket.done.wait()
    finally:
        ticket.left = True
    if ticket.error is not None:
        raise ticket.error
    return ticket.answer


def _require_thread() -> None:
    global _thread
    with _start:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="tracekit-inspect", daemon=True)
            _thread.start()


def _work() -> None:
    while True:
        waiting = _together()
        with alone:
            groups = _groups(waiting)
        for ticket in [one for one in waiting if one.error is not None]:
            _deliver(ticket)
        for group in groups:
            _answer(group)


def _together() -> list[_Ticket]:
    """The first request, and all that come until none has come for a moment."""
    waiting = [_tickets.get()]
    end = time.monotonic() + 10 * TOGETHER
    while time.monotonic() < end:
        try:
            waiting.append(_tickets.get(timeout=TOGETHER))
        except queue.Empty:
            break
    return waiting


def _groups(waiting: Sequence[_Ticket]) -> list[list[_Ticket]]:
    groups: dict[Hashable, list[_Ticket]] = {}
    for ticket in waiting:
        try:
            key = (id(ticket.serving), ticket.serving.key(ticket.asked))
        except Exception as error:  # whoever asked raises it
            ticket.error = error
        else:
            groups.setdefault(key, []).append(ticket)
    return list(groups.values())


def _answer(group: Sequence[_Ticket]) -> None:
    # one that was given up meanwhile costs nothing
    group = [ticket for ticket in group if not ticket.left]
    try:
        with alone:
            answers = group[0].serving.answers([one.asked for one in group]) if group else []
        for ticket, answer in zip(group, answers, strict=True):
            ticket.answer = answer
    except Exception as error:  # whoever asked raises it
        for ticket in group:
            ticket.error = error
    for ticket in group:
        _deliver(ticket)


def _deliver(ticket: _Ticket) -> None:
    # asyncio's and trio's own ways: neither waits for a loop that may never run again
    loop = ticket.loop.native_token
    soon = (
        loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon
    )
    try:
        soon(ticket.done.set)
    except RuntimeError:
        # its event loop has ended: nobody waits any more
        ticket.left = True
