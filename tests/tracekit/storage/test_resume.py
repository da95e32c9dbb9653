"""A capture that was killed, or whose disk was full, goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support import killed
from tracekit.passes import batching, forward

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    words = ["word " * (3 * n % 17 + 1) for n in range(12)]
    return tk.encode(tiny_llama, [f"Prompt {n}" for n in range(12)], responses=words)


def _traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    inner = forward._trace

    def counted(work: Any, rows: list[int], *rest: Any) -> Any:
        sizes.append(len(rows))
        return inner(work, rows, *rest)

    monkeypatch.setattr(forward, "_trace", counted)
    return sizes


def test_twenty_kills_leave_the_values_of_the_uninterrupted_run(
    tiny_folder: Path, tmp_path: Path
) -> None:
    script = Path(killed.__file__)
    command = [sys.executable, str(script), str(tiny_folder), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 kills")


def _a_file_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a batch takes long."""
    monkeypatch.setattr(batching, "SOON", 0)


def test_only_what_is_missing_runs_again(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    _a_file_a_batch(monkeypatch)
    whole = tk.capture(tiny_llama, runs, path=path, token_budget=80, **QUIET).compute()
    (path / "00001.nc").unlink()
    sizes = _traced(monkeypatch)
    again = tk.capture(tiny_llama, runs, path=path, token_budget=80, **QUIET)
    xr.testing.assert_identical(again.compute(), whole)
    assert len(sizes) == 1
    tk.capture(tiny_llama, runs, path=path, token_budget=80, **QUIET)
    assert len(sizes) == 1


def test_many_batches_share_files_and_leave_the_same_values(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_file_a_batch(monkeypatch)
    single = tk.capture(tiny_llama, runs, path=tmp_path / "x", token_budget=40, **QUIET).compute()
    assert len(list((tmp_path / "x").glob("*.nc"))) == 12
    monkeypatch.setattr("tracekit.passes.batching.MANY", 4)
    path = tmp_path / "y"
    asked = {
        "all": tk.Request(),
        "mean": tk.Request(reduce="mean"),
        "likely": tk.Request(site="logprob"),
    }
    paths = {name: path if name == "all" else tmp_path / name for name in asked}
    many = tk.capture_many(tiny_llama, runs, asked, path=paths, token_budget=40, **QUIET)
    assert [len(list(one.glob("*.nc"))) for one in paths.values()] == [4, 4, 4]
    xr.testing.assert_identical(many["all"].compute(), single)
    alone = tk.capture(tiny_llama, runs, reduce="mean", token_budget=40, **QUIET)
    xr.testing.assert_identical(many["mean"].compute().sel(prompt=alone.prompt), alone)
    apart = tk.logprobs(tiny_llama, runs, token_budget=40)
    np.testing.assert_array_equal(many["likely"].compute().sel(prompt=apart.prompt), apart)

    (path / "00001.nc").unlink()
    sizes = _traced(monkeypatch)
    again = tk.capture(tiny_llama, runs, path=path, token_budget=40, **QUIET)
    xr.testing.assert_identical(again.compute(), single)
    assert len(sizes) == 3  # the batches of that file alone

    # another limit, as beside other requests, leaves the files of before
    (path / "00003.nc").unlink()
    monkeypatch.setattr("tracekit.passes.batching.SHARD_BYTES", 1)
    again = tk.capture(tiny_llama, runs, path=path, token_budget=40, **QUIET)
    xr.testing.assert_identical(again.compute(), single)
    assert len(sizes) == 6


def test_a_capture_begun_with_a_file_a_batch_goes_on_so(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    _a_file_a_batch(monkeypatch)
    whole = tk.capture(tiny_llama, runs, path=path, token_budget=40, **QUIET).compute()
    (path / "00007.nc").unlink()
    monkeypatch.setattr("tracekit.passes.batching.SOON", 1e12)
    monkeypatch.setattr("tracekit.passes.batching.MANY", 4)
    again = tk.capture(tiny_llama, runs, path=path, token_budget=40, **QUIET)
    xr.testing.assert_identical(again.compute(), whole)
    assert len(list(path.glob("*.nc"))) == 12


@pytest.mark.parametrize(
    ("batches", "size", "shards"),
    [
        (32, 1, 32),
        (33, 1, 17),
        (512, 1, 32),
        (512, 1 << 25, 256),
        (512, 1 << 26, 512),
        (1000, 1, 63),
        (5000, 1, 313),
        (50_000, 1, 511),
        (5000, 1 << 26, 1250),
        (5000, 1 << 30, 5000),
    ],
)
def test_files_are_few_unless_they_would_be_large(batches: int, size: int, shards: int) -> None:
    plan = [[n] for n in range(batches)]
    made = batching.grouped(plan, batching.files(batches, size))
    assert len(made) == shards
    assert [rows for one in made for rows in one] == plan


@pytest.mark.parametrize(
    ("batches", "size", "soon", "shards"),
    [
        (3, 1, 100, 3),
        (8, 1, 100, 4),
        (31, 1, 100, 8),
        (31, 1, 3, 11),
        (31, 1 << 26, 100, 16),
        (31, 1 << 27, 100, 31),
        (512, 1, 100, 32),
        (31, 1, 0, 31),
    ],
)
def test_batches_that_are_soon_computed_share_files(
    batches: int, size: int, soon: int, shards: int
) -> None:
    assert batching.files(batches, size, soon) == shards


def test_a_larger_model_computes_fewer_batches_soon(tiny_llama: Any, embedded: Any) -> None:
    """The embedded one has 134.5 million weights."""
    assert [batching.soon(embedded, tokens) for tokens in (1024, 2048, 1 << 15)] == [14, 7, 0]
    assert batching.soon(tiny_llama, 2048) > 100


def test_a_small_capture_of_many_batches_has_a_few_files(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    made = tk.capture(tiny_llama, runs, path=path, token_budget=40, **QUIET)
    assert len(list(path.glob("*.nc"))) == 4
    inside = tk.capture(tiny_llama, runs, token_budget=40, **QUIET)
    xr.testing.assert_identical(made.compute().sel(prompt=inside.prompt), inside)


def test_the_budget_of_a_capture_is_kept_when_it_is_resumed(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it comes from free memory, which is another one by then."""
    path = tmp_path / "x"
    monkeypatch.setattr("tracekit.passes.batching.CPU_BUDGET", 100)
    whole = tk.capture(tiny_llama, runs, path=path, **QUIET).compute()
    (path / "00000.nc").unlink()
    monkeypatch.setattr("tracekit.passes.batching.CPU_BUDGET", 70)
    xr.testing.assert_identical(tk.capture(tiny_llama, runs, path=path, **QUIET).compute(), whole)


def test_a_line_that_was_being_logged_is_forgotten(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    whole = tk.capture(tiny_llama, runs, path=path, token_budget=80, **QUIET).compute()
    log = path / "shards.jsonl"
    log.write_text(log.read_text()[:-20])
    again = tk.capture(tiny_llama, runs, path=path, token_budget=80, **QUIET)
    xr.testing.assert_identical(again.compute(), whole)
    assert all(json.loads(line) for line in log.read_text().splitlines())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"layers": [1]}, r"layers: \[0, 1, 2, 3\] there, \[1\] now"),
        ({"tokens": "all"}, "tokens: 'response' there, 'all' now"),
        ({"compression": "zlib"}, "compression: 'blosc_zstd' there, 'zlib' now"),
        ({"token_budget": 70}, r"batches: \{'budget': 80"),
    ],
)
def test_other_settings_are_refused_and_both_shown(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    settings = {"token_budget": 80, **QUIET}
    tk.capture(tiny_llama, runs, path=tmp_path / "x", **settings)
    with pytest.raises(ValueError, match=words):
        tk.capture(tiny_llama, runs, path=tmp_path / "x", **{**settings, **how})


def test_prompts_whose_ids_changed_are_named(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    tk.capture(tiny_llama, runs, path=tmp_path / "x", **QUIET)
    words = [str(response) for response in runs.response.values]
    words[7] += " indeed"
    other = tk.encode(tiny_llama, [f"Prompt {n}" for n in range(12)], responses=words)
    with pytest.raises(ValueError, match=r"prompts with other token ids: text/7, not there: none"):
        tk.capture(tiny_llama, other, path=tmp_path / "x", **QUIET)


def test_a_foreign_path_is_refused_and_left_as_it_was(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"which is a file of 4 bytes"):
        tk.capture(tiny_llama, runs, path=tmp_path / "notes.txt", **QUIET)
    with pytest.raises(ValueError, match=r"which holds notes\.txt and no capture"):
        tk.capture(tiny_llama, runs, path=tmp_path, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_captures_into_one_path_are_refused(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    from tracekit.storage.capture_folder import Folder

    path = tmp_path / "x"
    with (
        Folder(path).locked(),
        pytest.raises(ValueError, match="another process is capturing into it"),
    ):
        tk.capture(tiny_llama, runs, path=path, **QUIET)


@pytest.mark.parametrize("disk", ["400k"], indirect=True)
@pytest.mark.parametrize("writers", [0, 1])
def test_a_full_disk_is_one_error_and_the_capture_goes_on_after(
    tiny_llama: Any, runs: xr.Dataset, disk: Path, writers: int
) -> None:
    settings = {"token_budget": 80, "writers": writers, **QUIET}
    (disk / "ballast").write_bytes(b"0" * 220_000)
    with pytest.raises(OSError, match=r"The disk is full: 0000\d\.nc in .* needs .* make space"):
        tk.capture(tiny_llama, runs, path=disk / "x", **settings)
    finished = {path: path.read_bytes() for path in (disk / "x").glob("*.nc")}
    assert finished
    assert not list((disk / "x").glob(".*.part"))
    (disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    whole = tk.capture(tiny_llama, runs, path=disk / "x", **settings)
    memory = tk.capture(tiny_llama, runs, token_budget=80, **QUIET)
    xr.testing.assert_identical(whole.sel(prompt=memory.prompt).compute(), memory)
    assert all(path.read_bytes() == content for path, content in finished.items())


@pytest.mark.parametrize("what", ["label", "group", "span"])
def test_other_labels_are_not_those_of_the_folder(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, what: str
) -> None:
    def labelled(values: list[int]) -> xr.Dataset:
        if what == "span":
            marked = np.zeros(runs.token_id.shape, bool)
            marked[values[0]] = True
            return runs.assign_coords(span=(("prompt", "token"), marked))
        names = values if what == "label" else [f"g/{value}" for value in values]
        return runs.assign_coords({what: ("prompt", names)})

    one, other = [0, 1] * 6, [1, 0] * 6
    first = tk.capture(tiny_llama, labelled(one), path=tmp_path / "x", **QUIET)
    saved = tk.save(labelled(one), tmp_path / "runs.nc")
    again = tk.capture(tiny_llama, tk.open(saved), path=tmp_path / "x", **QUIET)
    xr.testing.assert_identical(first.compute(), again.compute())
    with pytest.raises(tk.InputError, match="rows under other labels"):
        tk.capture(tiny_llama, labelled(other), path=tmp_path / "x", **QUIET)
