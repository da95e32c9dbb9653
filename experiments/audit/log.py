"""A log to follow for hours: which phase, how far, how long still, how much memory.

A line on stderr for a person, and the same as a line of JSON in the run's folder.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from experiments.audit.run import Run
from tracekit.progress import open_bars
from traits.contrast_sets.judge import without_credentials

EVERY = 30.0


@contextlib.contextmanager
def following(folder: Path, phase: str, number: int, count: int, every: float = EVERY) -> Iterator:
    """Log a phase (the `number`-th of `count`) while it runs: begin, every `every` s, and the end.

    How far it is comes from the progress bars that the phase and tracekit show. A phase that
    fails is logged with its error, which goes on to be raised.

    >>> with following(Path.cwd(), "capture", 3, 5):
    ...     traces = tk.capture(model, runs, layers=[12])
    """
    begun, ended = time.monotonic(), threading.Event()
    said = {"phase": phase, "number": number, "of": count}

    def note(event: str, **more: Any) -> None:
        seconds = time.monotonic() - begun
        write(folder, {**said, "event": event, "seconds": round(seconds, 1), **memory(), **more})

    def watch() -> None:
        while not ended.wait(every):
            done, what = progress()
            note("going on", **remaining(done, time.monotonic() - begun), what=what)

    watcher = threading.Thread(target=watch, daemon=True)
    note("begun")
    watcher.start()
    try:
        try:
            yield
        finally:
            # before the last entry: none comes after it
            ended.set()
            watcher.join()
    except BaseException as error:
        words = without_credentials(" ".join(str(error).split()))
        note("failed", error=f"{type(error).__name__}: {words[:300]}")
        raise
    else:
        note("finished", done=1.0)


def write(folder: Path, entry: dict[str, Any]) -> None:
    """Add an entry to the folder's log, and say it on stderr."""
    stamped = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}
    with Run(folder).log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(stamped, ensure_ascii=False) + "\n")
    tqdm.write(line(stamped), file=sys.stderr)


def line(entry: dict[str, Any]) -> str:
    """An entry in words.

    >>> line({"time": "2026-01-01T10:00:00+00:00", "phase": "capture", "number": 3, "of": 5,
    ...       "event": "going on", "seconds": 60, "done": 0.25, "left": 180, "memory": 2e9})
    '10:00:00 capture (3 of 5) going on, 25 %, 0:01:00 so far, 0:03:00 left, 2.0 GB'
    """
    parts = [f"{entry['phase']} ({entry['number']} of {entry['of']}) {entry['event']}"]
    if "done" in entry and entry["event"] != "finished":
        parts.append(f"{entry['done']:.0%}".replace("%", " %"))
    parts.append(f"{clock(entry['seconds'])} so far")
    if "left" in entry:
        parts.append(f"{clock(entry['left'])} left")
    parts.append(f"{entry['memory'] / 1e9:.1f} GB")
    if "gpu" in entry:
        parts.append(f"{entry['gpu'] / 1e9:.1f} GB on the GPU")
    parts += [str(entry[key]) for key in ("what", "error") if entry.get(key)]
    return f"{entry['time'][11:19]} " + ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss.

    >>> clock(3661)
    '1:01:01'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def memory() -> dict[str, int]:
    """Bytes that this process holds, and of the GPUs' memory where there are any."""
    held = {"memory": int(psutil.Process().memory_info().rss)}
    if torch.cuda.is_available():
        cards = range(torch.cuda.device_count())
        held["gpu"] = sum(torch.cuda.memory_reserved(card) for card in cards)
    return held


def progress() -> tuple[float, str]:
    """How far the progress bars are, 0 to 1 (the outermost first), and what they say."""
    bars = open_bars()
    done, part = 0.0, 1.0
    for bar in bars:
        done += part * bar.n / bar.total
        part /= bar.total
    return min(done, 1.0), ", ".join(f"{bar.desc} {bar.n:,}/{bar.total:,}" for bar in bars)


def remaining(done: float, seconds: float) -> dict[str, float]:
    """The share done, and the seconds left at the pace so far (none before anything is done).

    >>> remaining(0.25, 60.0)
    {'done': 0.25, 'left': 180.0}
    """
    if done <= 0:
        return {"done": 0.0}
    return {"done": round(done, 4), "left": round(seconds * (1 - done) / done, 1)}
