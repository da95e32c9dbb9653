"""What `plan` says a run will hold, against what it holds: the embedded model on this machine.

    python -m experiments.benchmarks.measuring.plan_memory [--preset smollm2] [--limit 40]

A process of its own loads the model, attaches the adapter, generates, and captures the window and
the projections of all layers, as the phases of the audit do; its peak memory above that of the
libraries (a tiny model has gone the same way before) stands beside the plan's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.plan.planning import plan
from experiments.audit.prompt_sets import read
from experiments.audit.settings.groups import Settings
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.measuring.paired import report
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model
from tracekit.storage.provenance import stamp

STEPS = ("load", "adapter", "generate", "capture", "project")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write `<out>/plan_memory.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--preset", default="smollm2")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="results/benchmarks")
    options = parser.parse_args(arguments)
    changes = {"limit": options.limit, "max_new_tokens": options.max_new_tokens}
    if options.inside:
        print(json.dumps(held(read_preset(options.preset, changes))))
        return
    found = measured(options.preset, **changes)
    expected = estimated(read_preset(options.preset, changes))
    report(table(options.preset, changes, expected, found), "plan_memory", Path(options.out))


def estimated(settings: Settings) -> dict[str, float]:
    """The plan's bytes: weights and adapter, and the peak, on a CPU.

    >>> estimated(read_preset("smollm2"))["load"]
    538060032.0
    """
    made = plan(settings, 1e12, gpu=False).held
    return {"load": made.weights, "adapter": made.weights + made.adapter, "peak": made.peak}


def measured(preset: str, limit: int, max_new_tokens: int) -> dict[str, float]:
    """The peaks after each step, in bytes above the libraries', of a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.measuring.plan_memory", "--inside"]
    command += ["--preset", preset, "--limit", str(limit)]
    command += ["--max-new-tokens", str(max_new_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "peak": max(found.values())}


def held(settings: Settings) -> dict[str, float]:
    """The highest memory so far after each of `STEPS`, above what was held before the first."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        _warm(Path(scratch))
        peak.reset()
        before = peak.peak()
        model = tk.load(settings.model.name, dtype=settings.model.dtype)
        found.append(peak.peak())
        asked = tk.encode(model, read(settings.prompts))
        with tk.adapter(model, settings.adapters.organism):
            found.append(peak.peak())
            runs = tk.generate(model, asked, max_new_tokens=settings.answers.max_new_tokens)
            found.append(peak.peak())
            tk.capture(model, runs, settings.model.window, path=Path(scratch) / "window")
            found.append(peak.peak())
            vectors = _vectors(len(model.layers), model._module.config.hidden_size)
            tk.capture(model, runs, vectors=vectors, path=Path(scratch) / "projections")
            found.append(peak.peak())
    return {name: float(size - before) for name, size in zip(STEPS, found, strict=True)}


def _warm(scratch: Path) -> None:
    """The same steps on a tiny random model: every library is loaded, and holds what it holds."""
    folder = tiny.build("Llama", scratch / "tiny", embedded_model())
    lora = tiny.build_lora(folder, scratch / "lora")
    model = tk.load(folder)
    with tk.adapter(model, str(lora)):
        runs = tk.generate(model, tk.encode(model, ["Hi"]), max_new_tokens=2, progress=False)
        tk.capture(model, runs, [0], path=scratch / "tiny window", progress=False)


def _vectors(depth: int, width: int) -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((2, depth, width)).astype(np.float32)
    coords = {"trait": ["random/0", "random/1"], "layer": range(depth)}
    return stamp(xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords), {})


def table(
    preset: str, changes: dict[str, int], expected: dict[str, float], found: dict[str, float]
) -> list[str]:
    """The report's lines."""
    given = ", ".join(f"{name} {value}" for name, value in changes.items())
    lines = [
        f"# Memory planned and held: preset {preset}, {given}",
        "",
        "| highest so far, after | planned MB | held MB | planned / held |",
        "| --- | --- | --- | --- |",
    ]
    for step in (*STEPS, "peak"):
        there = f"{found[step] / 1e6:,.0f}"
        said, part = "", ""
        if step in expected:
            said, part = f"{expected[step] / 1e6:,.0f}", f"{expected[step] / found[step]:.2f}"
        lines.append(f"| {step} | {said} | {there} | {part} |")
    return [*lines, "", "wanted at the peak: 0.85 to 1.15; held is above what the libraries held"]


if __name__ == "__main__":
    main()
