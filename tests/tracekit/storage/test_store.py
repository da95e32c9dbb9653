"""Files and folders: what comes back is what went in, and what is damaged is named."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage import shard, store
from tracekit.storage.capture_folder import Folder
from tracekit.storage.provenance import stamp

QUIET: dict[str, Any] = {"progress": False}


def _array(dtype: Any = np.float32) -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((3, 4, 5, 64)).astype(dtype)
    coords = {
        "prompt": ["x/1", "x/2", "x/3"],
        "layer": [3, 4, 7, 8, 9],
        "role": (("prompt", "token"), np.full((3, 4), "assistant")),
    }
    array = xr.DataArray(
        values, dims=("prompt", "token", "layer", "dim"), coords=coords, name="residual"
    )
    return stamp(array, {"made": "here"})


@pytest.fixture(scope="module")
def captured(tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "capture"
    runs = tk.encode(
        tiny_llama,
        [f"Item {n}" for n in range(6)],
        responses=["one two three " * (n + 1) for n in range(6)],
    )
    tk.capture(tiny_llama, runs, path=path, token_budget=120, **QUIET)
    return path


@pytest.fixture
def folder(captured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(captured, tmp_path / "capture"))


@pytest.mark.parametrize("compression", list(shard.CODECS))
def test_a_file_comes_back_bit_for_bit(tmp_path: Path, compression: str) -> None:
    array = _array()
    array[1, 2:] = np.nan
    path = tk.save(array, tmp_path / "x.nc", compression)
    again = tk.open(path)
    xr.testing.assert_identical(again, array)
    array[0, 0, 0, 0] += 1e-6
    with pytest.raises(AssertionError):
        xr.testing.assert_identical(again, array)
    xr.testing.assert_identical(
        tk.open(tk.save(again.sel(layer=7), tmp_path / "y.nc")), again.sel(layer=7)
    )


def test_a_large_file_is_read_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tk.save(_array(), tmp_path / "x.nc")
    monkeypatch.setattr(store, "EAGER_BYTES", 1)
    lazy = tk.open(path)
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), _array())


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).bytes(4 * 4 * 5 * 64 * 300),  # noise: nothing to compress
        np.arange(4 * 5 * 64 * 300, dtype=np.float32).tobytes(),
    ],
    ids=["noise", "regular"],
)
def test_values_that_do_not_compress_are_stored_all_the_same(tmp_path: Path, values: bytes) -> None:
    """netCDF's blosc filter would end this process on the noise."""
    bits = np.frombuffer(values, np.float32).reshape(4, -1, 5, 64)
    array = xr.DataArray(bits, dims=("prompt", "token", "layer", "dim"), name="residual")
    path = tk.save(stamp(array, {"made": "here"}), tmp_path / "x.nc")
    with xr.open_dataset(path) as again:
        found = again["residual"].values
    np.testing.assert_array_equal(found.view(np.uint32), bits.view(np.uint32))


@pytest.mark.parametrize(
    ("values", "sure"),
    [
        (np.zeros(1, np.uint16), True),  # bfloat16 as it leaves the device
        (np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32), True),
        (np.frombuffer(np.random.default_rng(0).bytes(1 << 18), np.float32), False),
        (np.zeros(1 << 16), False),  # float64: not looked into
    ],
)
def test_only_what_surely_shrinks_is_left_to_blosc(values: np.ndarray, sure: bool) -> None:
    assert shard.shrinks(values, 1 << 16) is sure
    assert not shard.shrinks(values, 100)


def test_real_values_are_compressed_by_blosc_and_smaller() -> None:
    rounded = shard.round_to_bfloat16(
        np.random.default_rng(0).standard_normal((1, 300, 2, 64)).astype(np.float32)
    )
    array = stamp(xr.DataArray(rounded, dims=("prompt", "token", "layer", "dim"), name="x"), {})
    made = shard.encodings(array.to_dataset(promote_attrs=True), "blosc_zstd")
    assert made["x"]["compression"] == "blosc_zstd"
    assert made["x"]["chunksizes"] == (1, 300, 1, 64)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "datetime64[ns]"])
def test_a_dtype_that_netcdf_cannot_hold_is_refused(tmp_path: Path, dtype: str) -> None:
    array = _array().astype(np.int64).astype(dtype)
    array.attrs = _array().attrs
    with pytest.raises(TypeError, match=rf"cannot hold residual \({dtype[:8]}.*astype"):
        tk.save(array, tmp_path / "x.nc")
    assert not list(tmp_path.iterdir())


def test_attributes_come_back_or_are_refused_by_name(tmp_path: Path) -> None:
    held = {"flag": True, "flags": [True, False], "none": np.False_, "word": "x", "list": [1, 2]}
    back = tk.open(tk.save(_array().assign_attrs(held), tmp_path / "x.nc")).attrs
    assert (back["flag"], back["none"], back["word"]) == (1, 0, "x")
    assert (list(back["flags"]), list(back["list"])) == ([1, 0], [1, 2])
    for wrong in (None, {"a": 1}, 1j, object()):
        with pytest.raises(TypeError, match=r"attribute 'flag' is .*Keep it as text"):
            tk.save(_array().assign_attrs(flag=wrong), tmp_path / "y.nc")
    assert [one.name for one in tmp_path.iterdir()] == ["x.nc"]


def test_an_array_without_provenance_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    array = _array()
    array.attrs = {"unit": "m"}
    with pytest.raises(ValueError, match=r"no provenance .*\['unit'\]"):
        tk.save(array, tmp_path / "x.nc")
    array.to_netcdf(tmp_path / "x.nc")
    with pytest.raises(ValueError, match="tracekit did not make this"):
        tk.open(tmp_path / "x.nc")
    (tmp_path / "y.nc").write_text("hello")
    with pytest.raises(ValueError, match=r"y\.nc. cannot be read .*Unknown file format"):
        tk.open(tmp_path / "y.nc")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tk.open(tmp_path / "z.nc")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        tk.save(_array(), tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.csv", r"ends in \.nc\.$"),
        ("x.NPY", r"ends in \.nc, or write \.npy with tk\.write_vectors"),
        ("x.zarr", r"or write \.zarr with tk\.export"),
        ("x.html", r"or write \.html with tk\.view"),
    ],
)
def test_a_name_of_another_format_is_refused(tmp_path: Path, name: str, advice: str) -> None:
    source = tk.save(_array(), tmp_path / "source.nc")
    with pytest.raises(tk.InputError, match=rf"{name}'.* says another format.*{advice}"):
        tk.save(_array(), tmp_path / name)
    with pytest.raises(tk.InputError, match=advice):
        tk.make_portable(source, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["source.nc"]


@pytest.mark.parametrize("name", ["x", "x.nc4", "x.h5", "x.hdf5", "run.v2"])
def test_a_name_that_says_no_other_format_comes_back(tmp_path: Path, name: str) -> None:
    xr.testing.assert_identical(tk.open(tk.save(_array(), tmp_path / name)), _array())


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("pairs.csv", r"tk\.read_prompts \(prompts\) or traits\.read_pairs"),
        ("kind.pt", r"tk\.read_vectors"),
        ("kind.json", r"tk\.read_prompts .* traits\.read_pairs .*, or tk\.read_vectors"),
    ],
)
def test_a_file_of_another_format_is_told_its_reader(
    tmp_path: Path, name: str, reader: str
) -> None:
    (tmp_path / name).write_text("positive,negative\n")
    with pytest.raises(tk.InputError, match=rf"no netCDF.* Read it with {reader}"):
        tk.open(tmp_path / name)
    # a netCDF file of that name, which earlier versions wrote
    tk.save(_array(), tmp_path / "x.nc").rename(tmp_path / name)
    xr.testing.assert_identical(tk.open(tmp_path / name), _array())


def test_what_is_no_array_of_xarray_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tk.InputError, match=r"save was given ndarray; .*tk\.traces"):
        inspect.unwrap(tk.save)(np.ones(3), tmp_path / "x.nc")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tk.save(_array(), tmp_path / "x.nc")
    with pytest.raises(TypeError):
        tk.save(_array(np.float16), path)
    xr.testing.assert_identical(tk.open(path), _array())
    assert [p.name for p in tmp_path.iterdir()] == ["x.nc"]


def test_layers_that_are_not_there_are_refused_with_those_that_are(
    captured: Path, tmp_path: Path
) -> None:
    path = tk.save(_array(), tmp_path / "x.nc")
    assert tk.open(path, layers=[7, 3]).layer.values.tolist() == [7, 3]
    for where, there in ((path, r"\[3, 4, 7, 8, 9\]"), (captured, r"\[0, 1, 2, 3\]")):
        with pytest.raises(
            ValueError, match=rf"Layers \[50\] of .* were asked for; it has {there}"
        ):
            tk.open(where, layers=[3, 50])


def test_one_layer_is_a_fraction_of_the_reads(tmp_path: Path, monkeypatch: Any) -> None:
    wide = xr.concat([_array().isel(token=[0] * 100)] * 4, "dim").assign_attrs(_array().attrs)
    path = tk.save(wide.rename("residual"), tmp_path / "x.nc")
    monkeypatch.setattr(store, "EAGER_BYTES", 1)
    chosen = tk.open(path).sel(layer=7)
    assert chosen.chunks == ((3,), (100,), (256,))
    np.testing.assert_array_equal(chosen, wide.sel(layer=7))


def test_a_copied_capture_opens(folder: Path) -> None:
    for path in folder.glob("*.nc"):
        path.touch()
    assert tk.open(folder).sizes["prompt"] == 6


def test_a_truncated_shard_is_named(folder: Path) -> None:
    victim = sorted(folder.glob("*.nc"))[1]
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"shard 00001\.nc of .* was truncated or edited"):
        tk.open(folder)


def test_an_edited_shard_of_the_same_size_is_named(folder: Path) -> None:
    victim = sorted(folder.glob("*.nc"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard 00000\.nc of .* was truncated or edited"):
        tk.open(folder)


def test_a_missing_shard_is_named_and_may_be_left_out(folder: Path) -> None:
    (folder / "00001.nc").unlink()
    with pytest.raises(ValueError, match=r"shards; 00001\.nc is not there"):
        tk.open(folder)
    assert 0 < tk.open(folder, partial=True).sizes["prompt"] < 6


def test_shards_that_disagree_on_a_label_are_not_joined(folder: Path) -> None:
    assert tk.open(folder).sizes["prompt"] == 6
    made = Folder(folder)
    record = made.records()["00001.nc"]
    with xr.open_dataset(folder / "00001.nc") as dataset:
        other = dataset.load().assign_coords(layer=dataset.layer + 1)
    tk.save(other, folder / "00001.nc")
    state = (folder / "00001.nc").stat()
    made.record({**record, "size": state.st_size, "mtime": state.st_mtime_ns})
    with pytest.raises(ValueError, match=r"shards do not fit together.*capture again|'layer'"):
        tk.open(folder)


def test_a_folder_without_a_capture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no capture"):
        tk.open(tmp_path)
