"""Projecting a stored capture in the plan's shape, against the plan's loop over `.pt` files.

    python -m experiments.benchmarks.projection --scratch /tmp [--gigabytes 2]

100 tokens × 21 layers × 8,192 dims of bfloat16 a prompt, written once through the shard writer
and once as one .pt a prompt, then projected onto 9 vectors × 21 layers. Each arm runs in its own
process, whose peak memory counts the labelled result too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import peak, synthetic
from experiments.benchmarks.measuring.paired import report
from tracekit.storage.provenance import stamp
from traits.vectors.projection import project

TOKENS, LAYERS, WIDTH, EACH = 100, range(40, 61), 8192, 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        count = int(settings.gigabytes * 1e9 / (TOKENS * len(LAYERS) * WIDTH * 2)) // EACH
        _write(Path(scratch), count)
        found: dict[str, list[tuple[float, float]]] = {"tracekit": [], "the plan's loop": []}
        for number in range(settings.rounds):
            for name in list(found)[:: 1 if number % 2 else -1]:
                found[name].append(_apart(name, scratch))
    report(_table(found, count * EACH), "projection", Path(settings.out))


def _write(scratch: Path, count: int) -> None:
    def made(number: int) -> synthetic.Shard:
        raw = torch.randn(len(LAYERS), EACH * TOKENS, WIDTH).bfloat16()
        prompts = range(number * EACH, (number + 1) * EACH)
        for prompt, values in zip(prompts, raw.split(TOKENS, 1), strict=True):
            torch.save(values.clone(), scratch / f"{prompt}.pt")
        frame = synthetic.labels(prompts, TOKENS, LAYERS, WIDTH)
        return stamp(frame, {"made": "synthetic"}), synthetic.bits(raw)

    synthetic.write(scratch / "capture", count, made)


def _vectors() -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((9, len(LAYERS), WIDTH)).astype(np.float32)
    coords = {"trait": [f"random/{n}" for n in range(9)], "layer": list(LAYERS)}
    return xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords)


def _ours(scratch: Path) -> object:
    return project(tk.open(scratch / "capture"), _vectors()).compute()


def _plans(scratch: Path) -> object:
    vectors = torch.as_tensor(_vectors().values)
    found = {}
    for path in sorted(scratch.glob("*.pt")):
        values = torch.load(path).float()
        for n, layer in enumerate(LAYERS):
            for trait in range(9):
                vector = vectors[trait, n]
                found[path.stem, layer, trait] = (values[n] @ vector) / vector.norm()
    return found


def _apart(name: str, scratch: str) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_measured, args=(name, scratch, sender))
    process.start()
    sender.close()
    answer = json.loads(receiver.recv())
    process.join()
    return answer[0], answer[1]


def _measured(name: str, scratch: str, sender: Any) -> None:
    before = peak.resident("VmHWM")
    begun = time.perf_counter()
    {"tracekit": _ours, "the plan's loop": _plans}[name](Path(scratch))
    seconds = time.perf_counter() - begun
    above = peak.resident("VmHWM") - before
    sender.send(json.dumps([seconds, above / 1e9]))


def _table(found: dict[str, list[tuple[float, float]]], prompts: int) -> list[str]:
    lines = [f"# Projection of {prompts} prompts × 100 tokens × 21 layers × 8,192", ""]
    lines += ["| arm | seconds | GB above start |", "| --- | --- | --- |"]
    for name, runs in found.items():
        middle = statistics.median(seconds for seconds, _ in runs)
        lines.append(f"| {name} | {middle:.2f} | {max(above for _, above in runs):.2f} |")
    pairs = zip(found["tracekit"], found["the plan's loop"], strict=True)
    share = statistics.median(a[0] / b[0] for a, b in pairs)
    return [*lines, "", f"tracekit / the plan's loop: {share:.2f} (wanted ≤ 1), < 2 GB"]


if __name__ == "__main__":
    main()
