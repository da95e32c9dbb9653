"""What captures take on disk and how fast they are written and read, on real residuals.

    python -m experiments.benchmarks.storage --runs runs.nc [--limit 40]

`--runs` are transcripts kept by experiments.benchmarks.capture. The residuals of ten layers, from
a bfloat16 and from a float32 model, go through the shard writer uncompressed and compressed, in
the same run; then one layer of ten is read against all. Medians of --rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring.paired import median, paired, ratio, report
from tracekit.passes import forward
from tracekit.passes.products import _job
from tracekit.passes.request import ask
from tracekit.storage import shard
from tracekit.transcripts.selection import kept_tokens

LAYERS = range(8, 18)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    runs = tk.open(settings.runs).isel(prompt=slice(settings.limit))
    lines = ["# Storage: ten layers of real residuals", ""]
    lines += ["| origin | codec | bytes / raw 16-bit | write / none | one layer / all |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("bfloat16", "float32"):
            job = _real_job(settings.model, dtype, runs, Path(scratch))
            lines += _compared(job, settings.rounds)
    lines += ["", "wanted: bfloat16 ≤ 0.85, write / none (time) ≤ 2, one layer / all ≤ 0.15"]
    report(lines, "storage", Path(settings.out))


def _real_job(name: str, dtype: str, runs: xr.Dataset, scratch: Path) -> shard.Job:
    model = tk.load(name, dtype=dtype, check=False)
    asked = ask(model, list(LAYERS), "residual", "response")
    work = forward.Work(model, runs, kept_tokens(runs, "response"), asked, {}, False)
    ((values,),) = forward.batches([work], [list(range(runs.sizes["prompt"]))])
    return _job(work, values, scratch / f"{dtype}.nc", "none")


def _compared(job: shard.Job, rounds: int) -> list[str]:
    codecs = {
        name: dataclasses.replace(
            job, compression=name, path=job.path.with_name(f"{job.dtype}-{name}.nc")
        )
        for name in shard.CODECS
    }
    writing = paired({n: partial(shard.finish, j) for n, j in codecs.items()}, rounds)
    raw = 2 * sum(layer.size for layer in job.raw)
    lines = []
    for name, made in codecs.items():
        _require_exact(made)
        reading = paired(_reading(made.path, made.name), rounds)
        lines.append(
            f"| {job.dtype} | {name} | {made.path.stat().st_size / raw:.3f} | "
            f"{ratio(writing, name, 'none'):.2f} ({median(writing, name):.2f} s) | "
            f"{ratio(reading, 'one', 'all'):.3f} |"
        )
    return lines


def _require_exact(job: shard.Job) -> None:
    with xr.open_dataset(job.path) as found:
        real = job.frame["token_id"].values >= 0
        values = found[job.name].values[real]
    expected = np.stack([shard.widen(layer, job.dtype) for layer in job.raw], 1)
    if not np.array_equal(values.view(np.uint32), expected.view(np.uint32)):
        raise ValueError(f"{job.path.name} does not hold the bits that were written.")


def _reading(path: Path, name: str) -> dict[str, Any]:
    # opened once: what is compared is reading
    values = xr.open_dataset(path, cache=False)[name]
    return {"all": lambda: values.copy().load(), "one": lambda: values.isel(layer=4).load()}


if __name__ == "__main__":
    main()
