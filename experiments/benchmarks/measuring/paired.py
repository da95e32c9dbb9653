"""Paired timings: every arm once a round, in another order each round; ratios within rounds."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: on the wall, and on the CPU (all threads, and children that ended)."""

    wall: float
    cpu: float


def paired(arms: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Timing]]:
    """Run every arm `rounds` times after one round that does not count."""
    found: dict[str, list[Timing]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            timing = _timed(arms[name])
            if number:
                found[name].append(timing)
                print(f"  round {number} {name}: {timing.wall:.2f} s", flush=True)
    return found


def _timed(arm: Callable[[], object]) -> Timing:
    _synchronise()
    wall, cpu = time.perf_counter(), _processor_time()
    arm()
    _synchronise()
    return Timing(time.perf_counter() - wall, _processor_time() - cpu)


def _processor_time() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(timings: Mapping[str, list[Timing]], arm: str, rival: str, clock: str = "wall") -> float:
    """The median over rounds of arm / rival."""
    pairs = zip(timings[arm], timings[rival], strict=True)
    return statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs)


def median(timings: Mapping[str, list[Timing]], arm: str, clock: str = "wall") -> float:
    """The median seconds of an arm."""
    return statistics.median(getattr(timing, clock) for timing in timings[arm])


def report(lines: list[str], name: str, out: Path) -> None:
    """Print the table, and keep it as `<out>/<name>.md`."""
    text = "\n".join([*lines, f"\n{device()}; torch {torch.__version__}"])
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n")


def device() -> str:
    """The machine in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"
