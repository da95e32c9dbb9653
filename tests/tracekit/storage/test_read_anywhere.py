"""Files without us: what netCDF and HDF5 readers without a plugin see is what was saved."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.command_line.main import main
from tracekit.storage import portable, shard
from tracekit.storage.dictionary import about, entries
from tracekit.storage.provenance import stamp

# a reader whose HDF5 finds no filter but its own
CODE = """
import sys, xarray as xr
with xr.open_dataset(sys.argv[1], engine=sys.argv[2]) as dataset:
    dataset.load().drop_attrs().to_netcdf(sys.argv[3], engine="h5netcdf")
"""


@pytest.fixture(scope="module")
def everything() -> xr.Dataset:
    """Every type that may be saved, with holes, empty dims, and texts in several scripts."""
    draw = np.random.default_rng(0)
    values = draw.standard_normal((3, 5, 2, 300)).astype(np.float32)
    values[1, 2:] = np.nan
    made = xr.Dataset(
        {
            "residual": (("prompt", "token", "layer", "dim"), values),
            "p": ("row", np.array([0.5, np.nan, np.inf, -0.0])),
            "whole": ("row", np.array([-(2**62), 0, 1, 2**62])),
            "bare": ("row", np.array([0, 1, 2, 2**63], np.uint64)),
            "exploit_span": (("prompt", "token"), draw.random((3, 5)) > 0.5),
            "text": ("prompt", np.array(["", "žluťoučký 日本 🙂", 'two\nlines "x"'])),
            "blank": ("prompt", np.array(["", "", ""])),
            "nothing": (("gone", "dim"), np.zeros((0, 300), np.float32)),
            "n_groups": 7,
            "rate": 0.25,
        },
        coords={
            "prompt": ["x/1", "x/2", "x/3"],
            "token": np.arange(-1, 4, dtype=np.int32),
            "layer": [-1, 3],
            "passed": ("prompt", np.array([True, False, True])),
            "extraction": "mean_diff",
        },
        attrs={"note": "žluť", "count": 3, "share": 0.1, "several": [1.0, 2.0], "blank": ""},
    )
    return stamp(made, {"weights": "w", "ids": "i"})


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_equal(found, expected)
    assert {*found.coords} == {*expected.coords}


def alone(code: str, *arguments: object) -> str:
    """What a fresh interpreter without filters of other packages says."""
    bare = {**os.environ, "HDF5_PLUGIN_PATH": "/nowhere"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_stock_xarray_opens_what_was_saved(
    everything: xr.Dataset, tmp_path: Path, engine: str
) -> None:
    path = tk.save(everything, tmp_path / "x.nc")
    alone(CODE, path, engine, tmp_path / "again.nc")
    with xr.open_dataset(tmp_path / "again.nc", engine="h5netcdf") as found:
        same(found.load(), everything)
        found["residual"][0, 0, 0, 0] += 1e-6
        with pytest.raises(AssertionError):
            same(found, everything)


def test_h5py_reads_it_with_filters_that_every_build_has(
    everything: xr.Dataset, tmp_path: Path
) -> None:
    path = tk.save(everything, tmp_path / "x.nc")
    with h5py.File(path, "r", locking=False) as file:
        assert filters(file) <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
        np.testing.assert_array_equal(file["residual"][()], everything["residual"])
        np.testing.assert_array_equal(file["whole"][()], everything["whole"])
        np.testing.assert_array_equal(file["passed"][()], everything["passed"].astype(np.int8))
        texts = [row.tobytes().rstrip(b"\0").decode() for row in file["text"][()]]
        assert texts == everything["text"].values.tolist()
        assert json.loads(file.attrs["provenance"]) == {"weights": "w", "ids": "i"}


def filters(file: h5py.File) -> set[int]:
    used: set[int] = set()

    def look(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            settings = item.id.get_create_plist()
            used.update(settings.get_filter(n)[0] for n in range(settings.get_nfilters()))

    file.visititems(look)
    return used


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="runs where netcdf-bin is installed")
def test_ncdump_prints_the_values_and_the_headers(everything: xr.Dataset, tmp_path: Path) -> None:
    path = tk.save(everything, tmp_path / "x.nc")
    done = subprocess.run(["ncdump", "-p", "9,17", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    numbers = re.search(r"\n residual =\s+(.*?);", printed, re.DOTALL)
    assert numbers is not None
    values = np.array([float(n.strip().removesuffix("f")) for n in numbers[1].split(",")])
    expected = everything["residual"].values.ravel()
    np.testing.assert_array_equal(values.astype(np.float32), expected)
    assert not np.array_equal(values.astype(np.float32), np.nan_to_num(expected))
    assert "whole = -4611686018427387904, 0, 1, 4611686018427387904" in printed
    assert 'residual:units = "1"' in printed
    assert "codec" not in printed


def test_every_variable_says_what_it_is_and_an_array_in_memory_does_not(
    everything: xr.Dataset, tmp_path: Path
) -> None:
    everything["rate"].attrs = {"long_name": "my own words"}
    path = tk.save(everything, tmp_path / "x.nc")
    with xr.open_dataset(path) as file:
        assert file["residual"].attrs == about("residual")
        assert file["token"].attrs["long_name"] == entries()["token"].meaning
        assert file["n_groups"].attrs["units"] == "1"
        assert file["rate"].attrs == {"long_name": "my own words", "units": "1"}
    again = tk.open(path)
    assert again["residual"].attrs == again["token"].attrs == {}
    assert again["rate"].attrs == {"long_name": "my own words"}
    everything["rate"].attrs = {}
    array = everything["residual"].assign_attrs(everything.attrs, units="mV")
    tk.save(array, tmp_path / "one.nc")
    with xr.open_dataset(tmp_path / "one.nc") as file:
        assert file["residual"].attrs["units"] == "mV"
        assert "units" not in file.attrs
    xr.testing.assert_identical(tk.open(tmp_path / "one.nc"), array)


@pytest.fixture(scope="module")
def capture(tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of several shards."""
    path = tmp_path_factory.mktemp("portable") / "capture"
    asked = [tk.Prompt(f"x/{n}", text="Item", labels={"mine": n}) for n in range(6)]
    runs = tk.encode(tiny_llama, asked, responses=["one two " * (n + 1) for n in range(6)])
    tk.capture(tiny_llama, runs, path=path, token_budget=120, progress=False)
    assert len(list(path.glob("*.nc"))) > 2
    return path


def test_a_capture_says_its_codec_and_is_rewritten_bit_for_bit(
    capture: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(next(capture.glob("*.nc"))) as file:
        assert file.attrs["codec"] == shard.SAYS
        assert file["residual"].attrs == about("residual")
    assert main(["portable", str(capture), "--out", str(tmp_path / "out")]) == 0
    before, after = (tk.open(path).load() for path in (capture, tmp_path / "out"))
    xr.testing.assert_identical(after, before)
    assert after.values.tobytes() == before.values.tobytes()
    for path in (tmp_path / "out").glob("*.nc"):
        with xr.open_dataset(path, engine="h5netcdf") as one:
            assert "codec" not in one.attrs
            np.testing.assert_array_equal(one["residual"], before.sel(prompt=one["prompt"]))
        with h5py.File(path, "r", locking=False) as file:
            assert 32001 not in filters(file)


def test_what_was_rewritten_is_still_held_against_its_checksums(
    capture: Path, tmp_path: Path
) -> None:
    portable.make_portable(capture, tmp_path / "out")
    path = sorted((tmp_path / "out").glob("*.nc"))[1]
    with h5py.File(path, "r", locking=False) as file:
        place = file["residual"].id.get_chunk_info(0).byte_offset
    content, state = bytearray(path.read_bytes()), path.stat()
    content[place + 20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match=f"{path.name}.*not those that were written"):
        tk.open(tmp_path / "out").load()


def test_an_interrupted_rewriting_goes_on(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = portable.write
    written: list[str] = []

    def killed(dataset: xr.Dataset, path: Path, compression: str) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path.name)
        real(dataset, path, compression)

    monkeypatch.setattr(portable, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        portable.make_portable(capture, tmp_path / "out")
    with pytest.raises(ValueError, match="has 1 of"):
        tk.open(tmp_path / "out")
    first = (tmp_path / "out" / written[0]).stat().st_mtime_ns
    monkeypatch.setattr(portable, "write", real)
    portable.make_portable(capture, tmp_path / "out")
    assert (tmp_path / "out" / written[0]).stat().st_mtime_ns == first
    xr.testing.assert_identical(tk.open(tmp_path / "out").load(), tk.open(capture).load())


def test_what_cannot_be_rewritten_is_refused(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tk.make_portable(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="onto itself"):
        tk.make_portable(capture, capture)
    with pytest.raises(ValueError, match=r"holds no capture of its own.*within: capture\."):
        tk.make_portable(capture.parent, tmp_path / "out")
    copy = Path(shutil.copytree(capture, tmp_path / "copy"))
    sorted(copy.glob("*.nc"))[0].unlink()
    with pytest.raises(ValueError, match=r"has \d of \d shards"):
        tk.make_portable(copy, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds mine\.txt"):
        tk.make_portable(capture, tmp_path / "other")


def test_a_file_with_the_fast_codec_is_rewritten(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((2, 60, 2, 300)).astype(np.float32)
    dims = ("prompt", "token", "layer", "dim")
    array = xr.DataArray(shard.round_to_bfloat16(values), dims=dims, name="residual")
    fast = tk.save(stamp(array, {"weights": "w"}), tmp_path / "fast.nc", "blosc_zstd")
    with pytest.raises(AssertionError, match="OSError"):
        alone(CODE, fast, "h5netcdf", tmp_path / "never.nc")
    slow = tk.make_portable(fast, tmp_path / "slow.nc")
    alone(CODE, slow, "h5netcdf", tmp_path / "again.nc")
    for path, there in ((fast, True), (slow, False)):
        with h5py.File(path, "r", locking=False) as file:
            assert (32001 in filters(file)) == ("codec" in file.attrs) == there
    xr.testing.assert_identical(tk.open(slow), tk.open(fast))
