"""The most memory that was held since a moment: of the GPUs where there are any, else resident.

The kernel's high-water mark, not getrusage's: that one starts with the peak of the parent process.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def reset() -> None:
    """Begin: what is held now is the peak so far (on a CPU: Linux).

    >>> reset()
    """
    if torch.cuda.is_available():
        torch.cuda.init()  # before its first use a card has no counters to reset
        for card in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(card)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes held at most since `reset`, on all cards together.

    >>> peak() > 10_000_000
    True
    """
    if torch.cuda.is_available():
        cards = range(torch.cuda.device_count())
        return sum(torch.cuda.max_memory_allocated(card) for card in cards)
    return resident("VmHWM")


def apart(target: Callable[..., None], *arguments: Any) -> Any:
    """What a function sends as JSON from a process of its own, whose peak is its alone.

    Its last argument is the end of a pipe that it sends to.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    answer = json.loads(receiver.recv())
    process.join()
    return answer


def resident(field: str = "VmRSS") -> int:
    """A field of this process's memory, in bytes: `VmRSS` is now, `VmHWM` the peak.

    >>> resident() <= resident("VmHWM")
    True
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
