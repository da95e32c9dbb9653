from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from distributed import Client, get_task_stream
from hypothesis import given, settings
from hypothesis import strategies as st

import tracekit as tk
from tracekit.storage import shard
from tracekit.storage.chunk_reader import Chunks, decodable

SIZES = {"prompt": 3, "token": 40, "layer": 4, "dim": 512}


def written(folder: Path, compression: str) -> tuple[Path, np.ndarray]:
    """A file of one variable in chunks of a prompt and a layer, holes included."""
    values = np.random.default_rng(0).standard_normal(tuple(SIZES.values())).astype(np.float32)
    values = shard.round_to_bfloat16(values)
    values[1, 30:] = np.nan
    dataset = xr.Dataset({"residual": (tuple(SIZES), values)})
    path = folder / f"{compression}.nc"
    dataset.to_netcdf(path, engine="netcdf4", encoding=shard.encodings(dataset, compression))
    return path, values


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    return written(tmp_path_factory.mktemp("chunks"), "blosc_zstd")


def keys(size: int) -> st.SearchStrategy[Any]:
    ends = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    steps = st.sampled_from([None, 1, 2, 3, -1, -2])
    return st.one_of(st.builds(slice, ends, ends, steps), st.integers(-size, size - 1))


@settings(deadline=None, max_examples=60)
@given(key=st.tuples(*(keys(size) for size in SIZES.values())))
def test_any_basic_index_gives_what_numpy_gives(
    stored: tuple[Path, np.ndarray], key: tuple[Any, ...]
) -> None:
    path, values = stored
    np.testing.assert_array_equal(Chunks(path, "residual")[key], values[key])


def test_another_value_is_seen(stored: tuple[Path, np.ndarray]) -> None:
    path, values = stored
    wrong = values.copy()
    wrong[2, 39, 3, 511] += 1
    found = Chunks(path, "residual")[2]
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(found, wrong[2])


@pytest.mark.parametrize("compression", list(shard.CODECS))
def test_every_codec_is_decoded_here(tmp_path: Path, compression: str) -> None:
    path, values = written(tmp_path, compression)
    with h5py.File(path) as file:
        assert decodable(file["residual"])
    np.testing.assert_array_equal(Chunks(path, "residual")[1:, 3], values[1:, 3])
    assert not np.array_equal(Chunks(path, "residual")[1:, 3], values[1:, 4])


def test_filters_that_are_not_known_here_are_left_to_netcdf(tmp_path: Path) -> None:
    values = np.ones((3, 40), np.float32)
    encoding = {"x": {"fletcher32": True, "chunksizes": (1, 40), "_FillValue": None}}
    dataset = xr.Dataset({"x": (("prompt", "dim"), values)})
    dataset.to_netcdf(tmp_path / "x.nc", engine="netcdf4", encoding=encoding)
    with h5py.File(tmp_path / "x.nc") as file:
        assert not decodable(file["x"])


def test_two_processes_of_dask_distributed_give_the_numbers_of_one(
    tiny_llama: Any, tmp_path: Path
) -> None:
    runs = tk.encode(tiny_llama, [f"Prompt {n}" for n in range(6)], responses=["word " * 9] * 6)
    path = tmp_path / "traces"
    memory = tk.capture(tiny_llama, runs, token_budget=40, progress=False)
    tk.capture(tiny_llama, runs, token_budget=40, path=path, progress=False)
    alone = tk.open(path).mean(["prompt", "token"]).compute()
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        with get_task_stream(client) as tasks:
            shared = tk.open(path).mean(["prompt", "token"]).compute()
        processes = client.run(os.getpid)
    worked = {processes[task["worker"]] for task in tasks.data}
    assert len(worked) == 2
    assert os.getpid() not in worked
    xr.testing.assert_identical(shared, alone)
    np.testing.assert_allclose(shared, memory.mean(["prompt", "token"]), rtol=1e-5)
