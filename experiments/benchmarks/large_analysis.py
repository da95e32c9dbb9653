"""Peak memory of an analysis over captures that are larger than memory.

    python -m experiments.benchmarks.large_analysis --scratch /tmp [--prompts 125]

Two arms of the plan's shape (500 prompts × 100 response tokens × 21 layers × 8,192; `--prompts`
scales it), written as capture writes them, shard by shard, with synthetic values of bfloat16
precision. The analysis reads them back through dask, in a process of its own: the shift of the
response mean in every dimension, and projections on nine traits by prompt, layer and token mean.
The scratch folder is removed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import peak, synthetic
from experiments.benchmarks.measuring.paired import report
from tracekit.storage.provenance import stamp
from traits.vectors.projection import project

PLAN = {"prompt": 500, "token": 100, "layer": 21, "dim": 8192}
SHARD_PROMPTS = 4  # what capture's own default makes of 100 + 100 tokens at this width
LIMIT = 4e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", type=int, default=PLAN["prompt"] // 4)
    parser.add_argument("--dim", type=int, default=PLAN["dim"])
    parser.add_argument("--layers", type=int, default=PLAN["layer"])
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    sizes = {**PLAN, "prompt": settings.prompts, "layer": settings.layers, "dim": settings.dim}
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        for number, arm in enumerate(("organism", "clean")):
            write(Path(scratch) / arm, sizes, np.random.default_rng([3, number]))
        stored = sum(path.stat().st_size for path in Path(scratch).rglob("*.nc"))
        measured = apart(scratch)
    report(table(sizes, stored, measured), "large_analysis", Path(settings.out))


def write(path: Path, sizes: dict[str, int], generator: np.random.Generator) -> None:
    """A capture (prompt, token, layer, dim) of synthetic values in `path`, in shards."""
    scale = np.exp(generator.normal(0, 1, sizes["dim"])).astype(np.float32)
    starts = range(0, sizes["prompt"], SHARD_PROMPTS)

    def made(number: int) -> synthetic.Shard:
        start = starts[number]
        prompts = range(start, min(start + SHARD_PROMPTS, sizes["prompt"]))
        count = len(prompts) * sizes["token"]
        raw = [_values(generator, count, scale) for _ in range(sizes["layer"])]
        return _labels(prompts, sizes), raw

    synthetic.write(path, len(starts), made)


def _values(generator: np.random.Generator, count: int, scale: np.ndarray) -> np.ndarray:
    drawn = generator.standard_normal((count, len(scale)), np.float32) * scale
    return (drawn.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def _labels(prompts: Sequence[int], sizes: dict[str, int]) -> xr.Dataset:
    layers = range(40, 40 + sizes["layer"])
    group = ("prompt", [f"synthetic/{n}" for n in prompts])
    frame = synthetic.labels(prompts, sizes["token"], layers, sizes["dim"], group=group)
    return stamp(frame, {"weights": "synthetic", "ids": "synthetic", "site": "residual"})


def apart(scratch: str) -> dict[str, float]:
    """`measured` in a process of its own, whose peak memory is the analysis's alone."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_send, args=(scratch, sender))
    process.start()
    sender.close()
    answer = json.loads(receiver.recv())
    process.join()
    return answer


def _send(scratch: str, sender: Any) -> None:
    sender.send(json.dumps(measured(Path(scratch))))


def measured(scratch: Path) -> dict[str, float]:
    """Seconds of opening, shifting and projecting, and the peak resident bytes."""
    peak.reset()  # a new process starts with the peak of the one that started it
    before = peak.resident("VmHWM")
    begun = time.perf_counter()
    arms = {name: tk.open(scratch / name) for name in ("organism", "clean")}
    opened = time.perf_counter()
    moved = tk.difference(arms["organism"], arms["clean"])
    shift = moved.sel(token=slice(0, None)).mean(["prompt", "token"]).compute()
    shifted = time.perf_counter()
    scores = project(arms["organism"], _traits(arms["organism"])).mean("token").compute()
    done = time.perf_counter()
    if not bool(np.isfinite(shift).all() and np.isfinite(scores).all()):
        raise ValueError("The analysis of finite values gave some that are not. Report this.")
    found = {"open": opened - begun, "shift": shifted - opened, "project": done - shifted}
    return {**found, "before": before, "peak": peak.resident("VmHWM")}


def _traits(traces: xr.DataArray) -> xr.DataArray:
    generator = np.random.default_rng(0)
    layers, width = traces["layer"].values, traces.sizes["dim"]
    values = generator.standard_normal((9, len(layers), width)).astype(np.float32)
    coords = {"trait": [f"synthetic/{n}" for n in range(9)], "layer": layers}
    vectors = xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords)
    return stamp(vectors.assign_coords(dim=traces["dim"]), {"weights": "synthetic"})


def table(sizes: dict[str, int], stored: int, found: dict[str, float]) -> list[str]:
    """The report's lines."""
    raw = 2 * int(np.prod(list(sizes.values())))
    share = sizes["prompt"] / PLAN["prompt"]
    shape = " × ".join(f"{size:,}" for size in sizes.values())
    return [
        f"# Analysis of a large capture: two arms of {shape}",
        "",
        f"{raw / 1e9:.2f} GB of 16-bit values an arm ({share:.0%} of the plan's prompts), "
        f"{stored / 1e9:.2f} GB on disk in all; synthetic values.",
        "",
        "| step | seconds |",
        "| --- | --- |",
        *(f"| {name} | {found[name]:.1f} |" for name in ("open", "shift", "project")),
        "",
        f"peak resident memory {found['peak'] / 1e9:.2f} GB (of which imports "
        f"{found['before'] / 1e9:.2f} GB); wanted: < {LIMIT / 1e9:.0f} GB",
    ]


if __name__ == "__main__":
    main()
