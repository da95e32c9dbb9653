"""Files that were damaged, edited, mixed up or left behind: right values, or one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support.damage import cuts, flips, outcome, outcomes
from tracekit.storage import files, seal, shard, store
from tracekit.storage.provenance import stamp

QUIET: dict[str, Any] = {"progress": False, "token_budget": 120}


def _array() -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((3, 20, 3, 300)).astype(np.float32)
    coords = {
        "prompt": ["x/1", "x/2", "x/3"],
        "layer": np.arange(3),
        "role": (("prompt", "token"), np.full((3, 20), "assistant")),
        "token_id": (("prompt", "token"), np.arange(60).reshape(3, 20)),
    }
    dims = ("prompt", "token", "layer", "dim")
    array = xr.DataArray(shard.round_to_bfloat16(values), dims=dims, coords=coords, name="residual")
    return stamp(array, {"made": "here"})


def _capture(model: Any, path: Path, words: str = "one two three ") -> xr.DataArray:
    texts = [words * (n + 1) for n in range(6)]
    runs = tk.encode(model, [f"Item {n}" for n in range(6)], responses=texts)
    return tk.capture(model, runs, path=path, **QUIET)


@pytest.fixture(scope="module")
def captured(tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "capture"
    _capture(tiny_llama, path)
    return path


@pytest.fixture
def folder(captured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(captured, tmp_path / "capture"))


def _sealed(content: bytes) -> tuple[dict[str, Any], bytes]:
    """What stands behind a file's end, and the file without it."""
    _, length, _ = seal._END.unpack(content[-seal._END.size :])
    start = len(content) - seal._END.size - length
    return json.loads(content[start : start + length]), content[:start]


def _places(length: int, count: int) -> list[int]:
    """All over a file, its ends included."""
    drawn = np.random.default_rng(0).integers(0, length, count // 2).tolist()
    return [*range(0, length, 2 * length // count), *drawn, length - 1]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("compression", list(shard.CODECS))
def test_every_region_of_a_saved_file(
    tmp_path: Path, compression: str, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tk.save(_array(), tmp_path / "x.nc", compression).read_bytes()
    if lazy:
        monkeypatch.setattr(store, "EAGER_BYTES", 1)

    def read(path: Path) -> xr.DataArray:
        return tk.open(path).load()

    xr.testing.assert_identical(read(tmp_path / "x.nc"), _array())
    places = _places(len(content), 60)
    changed = outcomes(flips(content, places), tmp_path, ".nc", read, _array())
    # the eight bytes that say that there are checksums
    assert changed["right"] <= 3
    assert changed["refused"] >= len(places) - 3
    cut = outcomes(cuts(content, _places(len(content), 12)), tmp_path, ".nc", read, _array())
    assert cut["right"] <= 3


@pytest.mark.parametrize("name", ["00000.nc", "capture.json", "shards.jsonl"])
def test_every_region_of_a_capture(folder: Path, name: str) -> None:
    """A shard's date is kept, so that nothing but its bytes tells."""
    path, right = folder / name, tk.open(folder).load()
    content, state = path.read_bytes(), (folder / name).stat()
    changed = []
    for damaged in flips(content, _places(len(content), 60)):
        # another file: HDF5 keeps what it knows of one that is open
        path.unlink()
        path.write_bytes(damaged)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        changed.append(outcome(lambda: tk.open(folder).load(), str(folder), right))
    assert changed.count("refused") > 10
    if name.endswith(".nc"):
        assert changed.count("right") <= 3


def test_a_value_that_changed_is_named_under_load_and_other_shards_are_read(folder: Path) -> None:
    right = tk.open(folder).load()
    path = folder / "00000.nc"
    content, state = bytearray(path.read_bytes()), path.stat()
    sealed, _ = _sealed(bytes(content))
    # the first bytes after HDF5's tables that are no table: the first prompt's first chunk
    content[sealed["ranges"][0][1] + 20] ^= 1
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    lazy = tk.open(folder)
    with pytest.raises(ValueError, match=r"00000\.nc' cannot be read .*values of 'residual' at"):
        lazy.load()
    others = slice(lazy.chunks[0][0], None)  # the other shards
    xr.testing.assert_identical(lazy.isel(prompt=others).load(), right.isel(prompt=others))


@pytest.mark.parametrize("compression", list(shard.CODECS))
def test_stock_readers_see_a_sealed_file_and_older_files_open(
    tmp_path: Path, compression: str
) -> None:
    path = tk.save(_array(), tmp_path / "x.nc", compression)
    with xr.open_dataset(path) as found:
        np.testing.assert_array_equal(found["residual"], _array())
        assert not np.array_equal(found["residual"], -_array())
    (tmp_path / "older.nc").write_bytes(_sealed(path.read_bytes())[1])
    xr.testing.assert_identical(tk.open(tmp_path / "older.nc"), _array())


def test_shards_of_another_capture_are_neither_opened_nor_resumed(
    tiny_llama: Any, folder: Path, tmp_path: Path
) -> None:
    _capture(tiny_llama, tmp_path / "other", "four five six ")
    for path in (tmp_path / "other").glob("*"):
        if path.name != "capture.json":
            shutil.copy2(path, folder / path.name)
    for act in (lambda: tk.open(folder), lambda: _capture(tiny_llama, folder)):
        with pytest.raises(ValueError, match=r"00000\.nc.*a shard of another capture: ids: '.*De"):
            act()


def test_prompts_that_are_there_twice_or_not_at_all_are_named(folder: Path) -> None:
    lines = (folder / "shards.jsonl").read_text().splitlines()
    # in the order in which they were written
    records = {record["file"]: record for record in map(json.loads, lines)}
    copied = shutil.copy2(folder / "00000.nc", folder / "00001.nc")
    again = {"file": "00001.nc", "mtime": Path(copied).stat().st_mtime_ns}
    records["00001.nc"] = {**records["00000.nc"], **again}
    lines = "".join(json.dumps(record) + "\n" for record in records.values())
    (folder / "shards.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=r"prompts in its shards are twice: text/\d.*missing: te"):
        tk.open(folder)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["settings"].update(site="mlp"), "edited since the capture began"),
        (lambda c: c.update(shards=1), "edited since the capture began"),
        (lambda c: c.pop("rows"), "KeyError: 'rows'"),
        (lambda c: (c.pop("digest"), c["settings"].update(ids="x")), "of another capture: ids"),
        (lambda c: (c.pop("digest"), c["rows"].pop("text/3")), "not asked for: text/3"),
    ],
)
def test_an_edited_manifest_is_refused(folder: Path, edit: Any, words: str) -> None:
    content = json.loads((folder / "capture.json").read_text())
    edit(content)
    (folder / "capture.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        tk.open(folder)


def test_a_manifest_without_a_hash_opens_and_resumes(tiny_llama: Any, folder: Path) -> None:
    """As older versions wrote it."""
    content = json.loads((folder / "capture.json").read_text())
    right = tk.open(folder).load()
    del content["digest"]
    (folder / "capture.json").write_text(json.dumps(content))
    xr.testing.assert_identical(_capture(tiny_llama, folder).load(), right)


def test_what_a_killed_save_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path, other = tmp_path / "x[1].nc", tmp_path / "y.nc"
    for target in (path, other):
        child = os.fork()
        if child == 0:
            files.part_of(target).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    living = path.with_name(f".{path.name}.{os.getppid()}-1.part")
    living.write_bytes(b"half")
    assert len(list(tmp_path.iterdir())) == 3
    tk.save(_array(), path)
    left = {item.name.split(".")[1] for item in tmp_path.glob(".*")}
    assert living.exists()
    assert left == {"x[1]", "y"}
    living.unlink()
    tk.save(_array(), other)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["x[1].nc", "y.nc"]


def test_a_backslash_in_a_folders_name(tiny_llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "a\\b" / "capture"
    made = _capture(tiny_llama, path).load()
    xr.testing.assert_identical(tk.open(path).load(), made)
    xr.testing.assert_identical(_capture(tiny_llama, path).load(), made)
    xr.testing.assert_identical(tk.open(tk.save(_array(), tmp_path / "a\\b" / "x.nc")), _array())
    assert [item.name for item in tmp_path.iterdir()] == ["a\\b"]
    with pytest.raises(ValueError, match="netCDF takes none with a backslash"):
        tk.save(_array(), tmp_path / "c\\d.nc")


def test_a_read_only_disk_gives_what_is_finished_and_refuses_what_is_not(
    tiny_llama: Any, disk: Path
) -> None:
    made = _capture(tiny_llama, disk / "capture").load()
    shutil.copytree(disk / "capture", disk / "half")
    (disk / "half" / "00001.nc").unlink()
    tk.save(_array(), disk / "x.nc")
    (disk / "capture" / ".00000.nc.1.part").write_bytes(b"half")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    xr.testing.assert_identical(tk.open(disk / "x.nc"), _array())
    xr.testing.assert_identical(tk.open(disk / "capture").load(), made)
    xr.testing.assert_identical(_capture(tiny_llama, disk / "capture").load(), made)
    assert not made.equals(made + 1)
    with pytest.raises(OSError, match="Read-only file system"):
        _capture(tiny_llama, disk / "half")


def test_what_is_no_fault_of_the_file_is_not_called_damage(tmp_path: Path) -> None:
    for error in (MemoryError(), KeyboardInterrupt(), FileNotFoundError(2, "x")):
        with pytest.raises(type(error)), files.reading(tmp_path):
            raise error
    words = r"cannot be read \(KeyError: 'a'\)\. It is damaged"
    with pytest.raises(ValueError, match=words), files.reading(tmp_path):
        raise KeyError("a")
