"""What checksums cost: a capture, opening it, reading one layer of it; with and without.

    python -m experiments.benchmarks.checksums [--rounds 15] [--out results/benchmarks]

A capture of the embedded model (8 prompts of 100 tokens, layers 10 to 19); the writing of such a
shard alone, opening and reading are of synthetic bfloat16 values of its shape. The arms alternate
in one process: the same code with its checksums taken out. CPU seconds, since what is asked is
work and not waiting.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import numpy as np
import torch

import tracekit as tk
from experiments.benchmarks.measuring import synthetic
from experiments.benchmarks.measuring.paired import median, paired, ratio, report
from tracekit.storage import chunk_reader, seal, shard
from tracekit.storage.provenance import stamp

PROMPTS, TOKENS, LAYERS, WIDTH, SHARDS = 8, 100, 10, 576, 5
# each arm does its work this often, so that the clock's step does not matter
TIMES = {
    "capture": 1,
    "a shard's writing alone": 2,
    "open": 2,
    "one layer": 4,
    "one layer's chunks alone": 4,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    lines = [
        "# Checksums: CPU time with / without",
        "",
        "| what | ratio | ms |",
        "| --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as scratch, dask.config.set(scheduler="synchronous"):
        for name, arms in _pairs(Path(scratch)).items():
            repeated = {arm: _times(act, TIMES[name]) for arm, act in arms.items()}
            timings = paired(repeated, settings.rounds)
            share = ratio(timings, "with", "without", "cpu")
            each = 1000 * median(timings, "without", "cpu") / TIMES[name]
            lines.append(f"| {name} | {share:.3f} | {each:.1f} |")
    lines += ["", "wanted: ≤ 1.03 of a capture, of opening and of reading"]
    report(lines, "checksums", Path(settings.out))


def _pairs(scratch: Path) -> dict[str, dict[str, Callable[[], object]]]:
    folder = synthetic.write(scratch / "capture", SHARDS, _made)
    job, first = synthetic.job(scratch, 0, _made(0)), folder / "00000.nc"
    sums = seal.verified(first)["residual"]
    checked = chunk_reader.Chunks(first, "residual", sums)
    bare = chunk_reader.Chunks(first, "residual")
    return {
        "capture": _captures(scratch),
        "a shard's writing alone": {
            "with": lambda: shard.finish(job),
            "without": _without("tracekit.storage.shard.seal", lambda: shard.finish(job)),
        },
        "open": {
            "with": lambda: tk.open(folder),
            "without": _without("tracekit.storage.store.verified", lambda: tk.open(folder)),
        },
        "one layer": {
            "with": _layer(tk.open(folder)),
            "without": _layer(
                _without("tracekit.storage.store.verified", partial(tk.open, folder))()
            ),
        },
        "one layer's chunks alone": {
            "with": lambda: checked[:, :, 4],
            "without": lambda: bare[:, :, 4],
        },
    }


def _layer(traces: Any) -> Callable[[], object]:
    return lambda: traces.sel(layer=4).values


def _captures(scratch: Path) -> dict[str, Callable[[], object]]:
    model = tk.load("smollm2-135m-instruct")
    words = ["word " * (TOKENS - 1)] * PROMPTS
    runs = tk.encode(model, [f"Prompt {n}" for n in range(PROMPTS)], responses=words)

    def capture() -> None:
        folder = scratch / "captured"
        shutil.rmtree(folder, ignore_errors=True)
        tk.capture(model, runs, range(10, 10 + LAYERS), path=folder, writers=0, progress=False)

    return {"with": capture, "without": _without("tracekit.storage.shard.seal", capture)}


def _without(name: str, act: Callable[[], object]) -> Callable[[], object]:
    def patched() -> object:
        with patch(name, lambda *_: {}):
            return act()

    return patched


def _times(act: Callable[[], object], count: int) -> Callable[[], object]:
    return lambda: [act() for _ in range(count)]


def _made(number: int) -> synthetic.Shard:
    both = ("prompt", "token")
    frame = synthetic.labels(
        range(number * PROMPTS, (number + 1) * PROMPTS),
        TOKENS,
        range(LAYERS),
        WIDTH,
        response=("prompt", ["word " * TOKENS] * PROMPTS),
        token_text=(both, np.full((PROMPTS, TOKENS), "something")),
        role=(both, np.full((PROMPTS, TOKENS), "assistant")),
    )
    raw = torch.randn(LAYERS, PROMPTS * TOKENS, WIDTH).bfloat16()
    return stamp(frame, {"made": "synthetic"}), synthetic.bits(raw)


if __name__ == "__main__":
    main()
