"""Captures that no model made: shards of given values, written as capture writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from tracekit.storage import shard
from tracekit.storage.capture_folder import Folder

Shard = tuple[xr.Dataset, Sequence[np.ndarray]]


def write(path: Path, count: int, made: Callable[[int], Shard]) -> Path:
    """A capture in `path` of `count` shards; `made` gives the labels and values of each."""
    folder = Folder(path)
    with folder.locked():
        folder.begin({"batches": {"budget": 0, "plan": "synthetic"}}, count, {})
        for number in range(count):
            folder.record(shard.finish(job(path, number, made(number))))
    return path


def job(path: Path, number: int, made: Shard) -> shard.Job:
    """A shard to write: of each layer, the 16 bits of its bfloat16 values (kept token, dim)."""
    frame, raw = made
    return shard.Job(
        path=path / f"{number:05d}.nc",
        frame=frame,
        name="residual",
        dims=("prompt", "token", "layer", "dim"),
        raw=tuple(raw),
        dtype="bfloat16",
        compression=shard.DEFAULT_CODEC,
        round_to=None,
    )


def labels(
    prompts: Sequence[int], tokens: int, layers: Sequence[int], width: int, **more: Any
) -> xr.Dataset:
    """The labels of a shard, and further ones.

    >>> dict(labels([4, 5], tokens=3, layers=range(2), width=8).sizes)
    {'prompt': 2, 'token': 3, 'layer': 2, 'dim': 8}
    """
    coords = {
        "prompt": [f"synthetic/{n}" for n in prompts],
        "token": np.arange(tokens, dtype=np.int32),
        "token_id": (("prompt", "token"), np.ones((len(prompts), tokens), np.int32)),
        "layer": np.asarray(layers, np.int32),
        "dim": np.arange(width, dtype=np.int32),
    }
    return xr.Dataset(coords={**coords, **more})


def bits(values: torch.Tensor) -> tuple[np.ndarray, ...]:
    """The 16 bits of bfloat16 values (layer, kept token, dim), a layer each.

    >>> bits(torch.zeros(2, 3, 8, dtype=torch.bfloat16))[0].shape
    (3, 8)
    """
    return tuple(layer.view(torch.uint16).numpy() for layer in values)
