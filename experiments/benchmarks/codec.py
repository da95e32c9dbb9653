"""Our chunk writer and reader against hdf5plugin's filters under h5netcdf, on real residuals.

    pip install hdf5plugin h5netcdf
    python -m experiments.benchmarks.codec --runs runs.nc [--limit 40]

The same labels and values of ten layers, the same chunks (a prompt and a layer), blosc with zstd
and byte shuffle in both. Ours also hashes the file and seals its chunks, so the rival is given the
same hash, and is timed without it besides. Medians of paired rounds.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# netCDF4 puts plugins of its own in the way of whoever comes after it
importlib.import_module("hdf5plugin")

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring.paired import median, paired, ratio, report
from experiments.benchmarks.storage import _real_job
from tracekit.storage import shard
from tracekit.storage.files import sha256
from tracekit.storage.seal import verified

OURS, PLUGIN, HASHED = "ours", "hdf5plugin", "hdf5plugin, hashed"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write `<out>/codec.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--runs", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of ours; the rival has one")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    runs = tk.open(settings.runs).isel(prompt=slice(settings.limit))
    lines = [
        "# Chunk writer and reader against hdf5plugin under h5netcdf",
        "",
        "| origin | | ours | hdf5plugin | hdf5plugin / ours |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("bfloat16", "float32"):
            job = _real_job(settings.model, dtype, runs, Path(scratch))
            lines += _compared(job, Path(scratch), settings)
    report([*lines, "", f"{settings.rounds} paired rounds, medians"], "codec", Path(settings.out))


def _compared(job: shard.Job, scratch: Path, settings: argparse.Namespace) -> list[str]:
    whole = shard.Job(**{**vars(job), "compression": "blosc_zstd"})
    ours, theirs = job.path, scratch / f"{job.dtype}-plugin.nc"
    writing = paired(
        {
            OURS: partial(shard.finish, whole, settings.threads),
            PLUGIN: partial(_plugin, job, theirs),
            HASHED: partial(_plugin_hashed, job, theirs),
        },
        settings.rounds,
    )
    _require_equal(ours, theirs, job.name)
    lines = [_line(job.dtype, f"write, against {arm}", writing, arm) for arm in (PLUGIN, HASHED)]
    for what, layers in (("open and read all", None), ("open and read one layer", [12])):
        arms = {OURS: _own_reader(ours, layers), PLUGIN: _plain_reader(theirs, layers)}
        lines.append(_line(job.dtype, what, paired(arms, settings.rounds), PLUGIN))
    sizes = [path.stat().st_size / 1e6 for path in (ours, theirs)]
    size = f"{sizes[0]:.1f} MB | {sizes[1]:.1f} MB | {sizes[1] / sizes[0]:.2f}"
    return [*lines, f"| {job.dtype} | size | {size} |"]


def _line(dtype: str, what: str, timings: Any, rival: str) -> str:
    seconds = [f"{median(timings, name):.3f} s" for name in (OURS, rival)]
    return f"| {dtype} | {what} | {' | '.join(seconds)} | {ratio(timings, rival, OURS):.2f} |"


def _plugin(job: shard.Job, path: Path) -> None:
    blosc = importlib.import_module("hdf5plugin").Blosc(cname="zstd", clevel=1, shuffle=1)
    rows = range(job.frame.sizes["prompt"])
    values = np.stack([shard._block(job, row) for row in rows])
    dataset = job.frame.assign({job.name: (job.dims, values)})
    chunks = shard.chunk_sizes(dict(dataset[job.name].sizes))
    encoding = {job.name: {**blosc, "chunksizes": chunks, "_FillValue": None}}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _plugin_hashed(job: shard.Job, path: Path) -> None:
    _plugin(job, path)
    sha256(path)


def _own_reader(path: Path, layers: list[int] | None) -> Callable[[], object]:
    verified(path)  # a capture's labels are verified once, when it is opened
    return lambda: tk.open(path, layers=layers).load()


def _plain_reader(path: Path, layers: list[int] | None) -> Callable[[], object]:
    def read() -> object:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return (dataset if layers is None else dataset.sel(layer=layers)).load()

    return read


def _require_equal(ours: Path, theirs: Path, name: str) -> None:
    with xr.open_dataset(ours) as one, xr.open_dataset(theirs, engine="h5netcdf") as other:
        np.testing.assert_array_equal(one[name].values, other[name].values)


if __name__ == "__main__":
    main()
