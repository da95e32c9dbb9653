"""A run in several processes that torchrun started: what each loads, and which one speaks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from tracekit.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two ways to use several processes."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--tensor-parallel", action="store_true", help="under torchrun: weights split over ranks"
    )
    either.add_argument(
        "--data-parallel", action="store_true", help="under torchrun: a copy a rank, prompts shared"
    )


def how_to_load(options: argparse.Namespace) -> Mapping[str, Any]:
    """What `tracekit.load` is given, by the way that was chosen.

    Errors: `ValueError` for a way without torchrun, or for torchrun without a way.
    """
    ways: dict[str, dict[str, Any]] = {
        "tensor_parallel": {"tp_plan": "auto"},
        "data_parallel": {"data_parallel": True},
    }
    chosen = [way for way in ways if getattr(options, way, False)]
    count = int(os.environ.get("WORLD_SIZE", "0"))
    flags = " or ".join(f"--{way.replace('_', '-')}" for way in ways)
    if chosen and not count:
        raise InputError(
            f"--{chosen[0].replace('_', '-')} was asked for in one plain process. Start it with "
            "torchrun --nproc-per-node 2 -m EXPERIMENT …"
        )
    if count > 1 and not chosen:
        raise InputError(
            f"torchrun started {count} processes, which would all do the same. Give {flags}."
        )
    return ways[chosen[0]] if chosen else {}


def copies(options: argparse.Namespace) -> int:
    """How many processes of this machine hold a copy of the model each."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if options.data_parallel else 1


def is_first() -> bool:
    """Whether this process speaks and keeps the run's books: rank 0, or the only one.

    >>> is_first()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """Wait for the other ranks, and end the group that this process joined, if it is in one."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
