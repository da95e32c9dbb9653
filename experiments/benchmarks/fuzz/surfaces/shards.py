"""Captures: shards with damaged bytes, manifests edited, torn or from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.fuzz.damage import altered, damaged, flipped
from experiments.benchmarks.fuzz.outcome import Case
from experiments.benchmarks.fuzz.surfaces.arrays import same
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model

CODECS = ("zlib", "blosc_zstd")


def _captures(place: Path) -> dict[str, xr.DataArray]:
    folder = tiny.build("Llama", place / "model", embedded_model())
    model = tk.load(folder, dtype="float32", check=False)
    words = ["word " * (3 * n % 7 + 1) for n in range(6)]
    found = {}
    for name, texts in (("one", "Prompt"), ("other", "Remark")):
        runs = tk.encode(model, [f"{texts} {n}" for n in range(6)], responses=words)
        for codec in CODECS:
            path = place / f"{name}-{codec}"
            found[path.name] = tk.capture(
                model, runs, [1, 3], path=path, token_budget=40, compression=codec, progress=False
            ).compute()
    return found


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One shard a case, damaged with its date kept or not."""
    whole = _captures(place)
    while True:
        name = f"one-{rng.choice(CODECS)}"
        shard = _one(sorted((place / name).glob("*.nc")), rng)
        data, dates = shard.read_bytes(), shard.stat()
        what, bad = ("flip", flipped(data, rng)) if rng.random() < 0.6 else damaged(data, rng)
        shard.write_bytes(bad)
        if rng.random() < 0.8:
            os.utime(shard, ns=(dates.st_atime_ns, dates.st_mtime_ns))
            what += ", date kept"
        yield Case(
            f"{name}/{shard.name} {what}",
            lambda p=place / name: _loaded(p, rng),
            lambda v, n=name: _within(v, whole[n]),
        )
        shard.write_bytes(data)
        os.utime(shard, ns=(dates.st_atime_ns, dates.st_mtime_ns))


def manifests(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One folder a case: its manifest damaged, or its shards exchanged."""
    whole = _captures(place)
    while True:
        name = f"one-{rng.choice(CODECS)}"
        folder, kept = place / name, place / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        what = _mix(folder, place / name.replace("one", "other"), rng)
        yield Case(
            f"{name}: {what}",
            lambda p=folder: _loaded(p, rng),
            lambda v, n=name: _within(v, whole[n]),
        )
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)


def _mix(folder: Path, other: Path, rng: np.random.Generator) -> str:
    kind = int(rng.integers(6))
    shards = sorted(folder.glob("*.nc"))
    if kind == 0:
        for shard in folder.glob("*.nc"):
            shard.unlink()
        for shard in other.glob("*.nc"):
            shutil.copy2(shard, folder)
        return "every shard of another capture"
    if kind == 1:
        shutil.copy2(_one(sorted(other.glob("*.nc")), rng), _one(shards, rng))
        return "a shard of another capture"
    if kind == 2:
        name = str(rng.choice(["capture.json", "shards.jsonl"]))
        shutil.copy2(other / name, folder / name)
        return f"{name} of another capture"
    if kind == 3:
        a, b = (_one(shards, rng) for _ in range(2))
        a.rename(folder / "x"), b.exists() and b.rename(a), (folder / "x").rename(b)
        return "two shards exchanged"
    path = folder / str(rng.choice(["capture.json", "shards.jsonl"]))
    if kind == 4:
        done, data = damaged(path.read_bytes(), rng)
        path.write_bytes(data)
        return f"{path.name} {done}"
    lines = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if (path.suffix == ".jsonl")
        else [json.loads(path.read_text())]
    )
    done, lines = altered(lines, rng)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return f"{path.name} {done}"


def _loaded(path: Path, rng: np.random.Generator) -> Any:
    found = tk.open(path)
    return found.sel(layer=[3]).load() if rng.random() < 0.3 else found.load()


def _within(found: Any, expected: xr.DataArray) -> bool:
    if not isinstance(found, xr.DataArray) or not set(found.layer.values) <= {1, 3}:
        return False
    return same(found, expected.sel(layer=found.layer.values))


def _one(paths: list[Path], rng: np.random.Generator) -> Path:
    return paths[int(rng.integers(len(paths)))]
