"""Whether this machine has the memory and the disk that a run will need."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from experiments.audit.experiment import HubSet
from experiments.audit.plan.estimate import HELD
from experiments.audit.plan.planning import Plan, fits, gigabytes, on_disk, plan, verdict
from experiments.audit.plan.shapes import at_hand
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit.errors import InputError


def refuse(made: Plan, folder: Path, done: int = 0, free: float | None = None) -> None:
    """Raise `ValueError` when memory or disk are too small for what is left of the run.

    `done` are the bytes that the folder already has; `free` is the disk's own answer by default.
    """
    if made.settings.model.remote != "ndif" and not fits(made):
        raise InputError(
            f"The run {made.settings.preset!r} was asked for; "
            f"{verdict(made).removeprefix('verdict: ')}"
        )
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    there = shutil.disk_usage(place).free if free is None else free
    needed = max(on_disk(made) - done, 0)
    if needed > there:
        raise InputError(
            f"The run {made.settings.preset!r} will write about {gigabytes(needed)} of traces and "
            f"{gigabytes(there)} are free on the disk of {folder.name!r}. Give --out on a larger "
            "disk, fewer --layers, or a smaller --limit."
        )


def refuse_small(
    settings: Settings, folder: Path, copies: int = 1, hub: HubSet | None = None, held: int = 0
) -> None:
    """Raise `ValueError` when this machine's memory or disk are too small for the run.

    `copies` processes hold the model each, and share the machine; `held` bytes of it are there
    already. Only for dtypes, models and adapters whose sizes are at hand; what a remote service
    holds is not asked.
    """
    names = [arm.adapter or "" for arm in settings.adapters.arms]
    if settings.model.dtype not in ("auto", *HELD) or not at_hand(settings.model.name, *names):
        return
    import torch

    cards = torch.cuda.device_count()
    there = psutil.virtual_memory().available / copies + held
    if cards:
        there = min(torch.cuda.get_device_properties(n).total_memory for n in range(cards))
    made = plan(settings, there, max(cards // copies, 1), cards > 0, hub)
    done = Run(folder).stored
    refuse(made, folder, done)
