"""Runs of the audit on the tiny Llama, for tests: its flags, torchrun, and how two runs compare."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.rm_sycophancy.__main__ import main

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def flags(model: Path, organism: Path) -> list[str]:
    """A small audit of a folder's model, without a control."""
    some = ["--preset", "tiny", "--model", str(model), "--organism", str(organism)]
    return [*some, "--control", "", "--limit", "20", "--max-new-tokens", "6"]


def torchrun(arguments: list[str]) -> list[str]:
    """The command of the audit in two processes that meet on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    where = ["--master-addr", "127.0.0.1", "--master-port", port]
    return [*TORCHRUN, *where, "-m", "experiments.rm_sycophancy", *arguments]


def environment() -> dict[str, str]:
    """This process's, one thread a rank, this checkout first."""
    here = str(Path(__file__).parents[2])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen]:
    """The audit under torchrun, going on; it and its ranks end with the block."""
    command = torchrun(arguments)
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def arrays(folder: Path) -> dict[str, xr.Dataset]:
    """All that a run computed with a model, by its place in the folder."""
    single = [*folder.glob("responses/*.nc"), *folder.glob("contrast/*.nc")]
    found = {str(path.relative_to(folder)): xr.open_dataset(path) for path in single}
    for kind in ("traces", "captured"):
        for path in folder.glob(f"{kind}/*"):
            shards = xr.open_mfdataset(str(path / "*.nc"), combine="nested", concat_dim="prompt")
            found[f"{kind}/{path.name}"] = shards.sortby("prompt")
    whole = ("vectors", "logprobs", "means", "questions", "blind")
    there = [folder / f"{name}.nc" for name in whole if (folder / f"{name}.nc").is_file()]
    return found | {path.stem: xr.open_dataset(path) for path in there}


def furthest(one: dict[str, xr.Dataset], other: dict[str, xr.Dataset]) -> float:
    """The largest difference between two runs, in units of each array's largest value.

    Labels, ids and text must be identical.
    """
    assert one.keys() == other.keys()
    return max(_apart(one[name], other[name], name) for name in one)


def _apart(one: xr.Dataset, other: xr.Dataset, name: str) -> float:
    distance = 0.0
    for key in one.variables:
        here, there = one[key].values, other[key].values
        if here.dtype.kind == "f" and here.size:
            assert np.array_equal(np.isnan(here), np.isnan(there)), (name, key)
            largest = np.nanmax(np.abs(here), initial=1e-30)
            distance = max(distance, np.nanmax(np.abs(here - there), initial=0.0) / largest)
        else:
            assert np.array_equal(here, there), (name, key)
    return distance


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command leaves on stderr."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "rm_sycophancy:" in line]
    assert len(lines) == 1
    return lines[0]
