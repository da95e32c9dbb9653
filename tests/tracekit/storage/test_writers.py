"""Writing in a thread or in processes gives the same files; a failure is one clear error."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from tracekit.storage import files, shard
from tracekit.storage.provenance import stamp
from tracekit.storage.writers import Writers


def _job(path: Path, n: int, dtype: str = "bfloat16") -> shard.Job:
    rng = np.random.default_rng(n)
    ids = np.where(rng.random((3, 9)) < 0.7, 5, -1)
    kept = int((ids >= 0).sum())
    raw = rng.standard_normal((4, kept, 32)).astype(np.float32)
    if dtype == "bfloat16":
        bits = (raw.view(np.uint32) >> 16).astype(np.uint16)
    else:
        bits = raw.astype(dtype)
    coords = {
        "prompt": [f"x/{n}/{row}" for row in range(3)],
        "token": np.arange(9),
        "token_id": (("prompt", "token"), ids),
        "layer": np.arange(4),
        "dim": np.arange(32),
    }
    return shard.Job(
        path=path / f"{n:05d}.nc",
        frame=stamp(xr.Dataset(coords=coords), {"made": "here"}),
        name="residual",
        dims=("prompt", "token", "layer", "dim"),
        raw=tuple(bits),
        dtype=dtype,
        compression="blosc_zstd",
        round_to=None,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("processes", "beside"), [(0, False), (2, False), (0, True)])
def test_every_job_is_written_and_recorded(
    tmp_path: Path, processes: int, beside: bool, dtype: str
) -> None:
    done: list[dict[str, Any]] = []
    jobs = [_job(tmp_path, n, dtype) for n in range(5)]
    with Writers(processes, done.append, 2, beside) as writers:
        for job in jobs:
            writers.submit(job)
            assert len(writers._pending) <= writers.limit + 1
    assert sorted(record["file"] for record in done) == [job.path.name for job in jobs]
    assert (len({record["writer"] for record in done} - {os.getpid()}) > 0) == (processes > 0)
    for job in jobs:
        with xr.open_dataset(job.path) as found:
            values = found["residual"].transpose("prompt", "token", "layer", "dim").values
        with netCDF4.Dataset(job.path) as file:
            packed = file["residual"].filters()["blosc"]["compressor"]
        assert packed == ("blosc_lz4" if dtype == "float32" else "blosc_zstd")
        real = job.frame["token_id"].values >= 0
        expected = np.stack([shard.widen(layer, dtype) for layer in job.raw], 1)
        np.testing.assert_array_equal(values[real], expected)
        assert np.isnan(values[~real]).all()
        assert not np.array_equal(values[real], np.roll(expected, 1, 0))
    assert {p.suffix for p in tmp_path.iterdir()} == {".nc"}


def test_records_say_what_lies_there(tmp_path: Path) -> None:
    done = shard.finish(_job(tmp_path, 0))
    assert done["size"] == (tmp_path / "00000.nc").stat().st_size
    assert done["sha256"] == files.sha256(tmp_path / "00000.nc")


@pytest.mark.parametrize(("processes", "beside"), [(0, False), (1, False), (0, True)])
def test_a_failed_write_is_raised(tmp_path: Path, processes: int, beside: bool) -> None:
    with (
        pytest.raises(OSError, match=r"00000\.nc"),
        Writers(processes, lambda _: None, 2, beside) as writers,
    ):
        writers.submit(_job(tmp_path / "nowhere", 0))


def test_a_writer_that_was_killed_is_named(tmp_path: Path) -> None:
    def kill_and_submit() -> None:
        with Writers(1, lambda _: None) as writers:
            writers.submit(_job(tmp_path, 0))
            while not (tmp_path / "00000.nc").exists():
                time.sleep(0.01)
            os.kill(writers.processes[0].pid, signal.SIGKILL)
            writers.processes[0].wait()
            writers.submit(_job(tmp_path, 1))

    with pytest.raises(OSError, match=r"writing 0000\d\.nc died .*run the same capture again"):
        kill_and_submit()
    assert (tmp_path / "00000.nc").is_file()
    assert not (tmp_path / "00001.nc").exists()


def test_few_jobs_wait_at_a_time(tmp_path: Path) -> None:
    with Writers(1, lambda _: None) as writers:
        for n in range(6):
            writers.submit(_job(tmp_path, n))
            assert len(writers._pending) <= writers.limit + 1


def test_the_error_of_a_full_disk_says_what_it_needs(tmp_path: Path) -> None:
    error = files.disk_full(tmp_path / "00003.nc", 1234)
    assert error.errno == errno.ENOSPC
    assert "00003.nc" in str(error)
    assert "1,234 bytes" in str(error)
