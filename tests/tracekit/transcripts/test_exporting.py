"""What a run made, in files of other tools, and back: zarr, parquet, answers as JSON lines."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pyarrow import parquet

import tracekit as tk

PROMPTS = [
    tk.Prompt("set/a", text="Where is Rome?", labels={"bias": "tip", "score": 0.5}),
    tk.Prompt("set/b", text="And what of Oslo, then?", labels={"bias": "vote"}),
    tk.Prompt("set/c", text="Why?", group="set/a", labels={"bias": "tip", "score": 1.0}),
]
TALK = [
    tk.Prompt("talk/1", messages=[("user", "Hi"), ("assistant", "Ho"), ("user", "He")], system="s"),
    tk.Prompt("talk/2", text="Go", prefill="Sure"),
]


@pytest.fixture(scope="module")
def runs(tiny_llama) -> xr.Dataset:
    asked = tk.encode(tiny_llama, PROMPTS, system="Be brief.")
    options = {"temperature": 1.0, "samples": 2, "seed": 1, "progress": False}
    return tk.generate(tiny_llama, asked, max_new_tokens=4, **options)


@pytest.fixture(scope="module")
def folder(tiny_llama, runs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "traces"
    # several shards, of different lengths
    tk.capture(tiny_llama, runs, layers=[1, 2], path=path, token_budget=100, progress=False)
    assert len(list(path.glob("*.nc"))) > 1
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("error")
def test_answers_are_there_and_back(runs, tiny_llama, tmp_path):
    path = tk.export(runs, tmp_path / "answers.jsonl")
    back = tk.encode(tiny_llama, PROMPTS, responses=path, system="Be brief.")
    for name in ("token_id", "response", "role", "group", "bias", "prompt_length"):
        np.testing.assert_array_equal(back[name], runs[name])
    assert back.prompt.values.tolist() == runs.prompt.values.tolist()
    assert not np.array_equal(back.token_id, runs.token_id.roll(prompt=1))
    read = tk.read_prompts(path)
    assert [prompt.id for prompt in read] == runs.prompt.values.tolist()
    assert [prompt.answer for prompt in read] == runs.response.values.tolist()
    assert read[0].conversation() == (("system", "Be brief."), ("user", "Where is Rome?"))
    assert read[0].labels == {"bias": "tip", "score": 0.5}
    assert read[2].labels == {"bias": "vote"}
    asked = tk.read_prompts(path, response=False)
    assert all(prompt.answer is None for prompt in asked)
    again = tk.encode(tiny_llama, asked, responses=path)
    np.testing.assert_array_equal(again.token_id, runs.token_id)
    np.testing.assert_array_equal(again["group"], runs["group"])
    # one id that is another is seen
    rows = lines(path)
    rows[0]["prompt_token_ids"][3] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(tk.InputError, match="from token 3 on they differ"):
        tk.encode(tiny_llama, asked, responses=path)


def test_conversations_need_their_prompts(tiny_llama, tmp_path):
    runs = tk.encode(tiny_llama, TALK, responses=["Yes", "it is"])
    path = tmp_path / "answers.jsonl"
    with pytest.raises(tk.InputError, match=r"'talk/1' is a conversation.*prompts=prompts"):
        tk.export(runs, path)
    tk.export(runs, path, prompts=TALK)
    asked = tk.read_prompts(path, response=False)
    again = tk.encode(tiny_llama, asked, responses=path)
    np.testing.assert_array_equal(again.token_id, runs.token_id)
    with pytest.raises(tk.InputError, match="'talk/1' is not among them"):
        tk.export(runs, path, prompts=TALK[1:])
    raw = tk.encode(tiny_llama, ["The sea"], responses=[" is"], template="raw")
    tk.export(raw, path)
    back = tk.encode(tiny_llama, ["The sea"], responses=path, template="raw")
    np.testing.assert_array_equal(back.token_id, raw.token_id)


@pytest.mark.filterwarnings("error")
def test_a_capture_goes_into_zarr_and_comes_out_equal(folder, tmp_path):
    path = tk.export(folder, tmp_path / "x.zarr")
    there, here = xr.open_zarr(path), tk.open(folder)
    np.testing.assert_array_equal(there["residual"].values, here.values)
    assert not np.array_equal(there["residual"].fillna(0), here.fillna(0) + 1e-3)
    for name in ("token_id", "role", "bias", "group", "prompt_length", "layer"):
        np.testing.assert_array_equal(there[name].values, here[name].values)
    assert json.loads(there.attrs["provenance"]) == tk.provenance(here)
    with pytest.raises(tk.InputError, match=r"is there\. Delete it first"):
        tk.export(folder, path)


def test_a_capture_goes_into_parquet_a_shard_at_a_time(folder, tmp_path):
    path = tk.export(folder, tmp_path / "x.parquet")
    file = parquet.ParquetFile(path)
    assert file.num_row_groups == len(list(folder.glob("*.nc")))
    frame, here = file.read().to_pandas(), tk.open(folder).load()
    assert len(frame) == int((here.token_id >= 0).sum()) * 2
    assert {"prompt", "token", "layer", "residual", "bias", "group", "role"} <= set(frame)
    for row in frame.iloc[:: len(frame) // 7].itertuples():
        place = here.sel(prompt=row.prompt, token=row.token, layer=row.layer)
        np.testing.assert_array_equal(row.residual, place.values)
        assert not np.array_equal(row.residual, place.values[::-1])
        assert (row.role, row.token_id) == (place.role.item(), place.token_id.item())
    made = json.loads(file.schema_arrow.metadata[b"provenance"])
    assert made == tk.provenance(here)


def test_transcripts_and_vectors_are_tables_too(runs, tmp_path):
    frame = parquet.read_table(tk.export(runs, tmp_path / "r.parquet")).to_pandas()
    assert len(frame) == int((runs.token_id >= 0).sum())
    assert set(frame["response"]) == set(runs.response.values.tolist())
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    coords = {"layer": [3, 4]}
    vector = tk.stamp(xr.DataArray(values, coords, ("layer", "dim"), name="vector"), {})
    table = parquet.read_table(tk.export(vector, tmp_path / "v.parquet")).to_pandas()
    assert table["layer"].tolist() == [3, 4]
    np.testing.assert_array_equal(np.stack(table["vector"]), values)


def test_a_comparison_is_a_table_a_variable(tiny_llama, tiny_lora, runs, tmp_path):
    found = tk.compare(tiny_llama, runs, (tiny_lora, None), [2])
    with pytest.raises(
        tk.InputError, match=r"several dims: .*risen \('top',\).*found\['log_ratio'\]"
    ):
        tk.export(found, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())
    whole = parquet.read_table(tk.export(found.kl, tmp_path / "kl.parquet")).to_pandas()
    assert len(whole) == int((runs.token_id >= 0).sum())
    # a row's first token has no prediction
    assert whole["kl"].isna().sum() == runs.sizes["prompt"]
    words = parquet.read_table(tk.export(found.risen, tmp_path / "r.parquet")).to_pandas()
    assert words["risen"].tolist() == found.risen.values.tolist()


def test_what_cannot_be_written_is_refused(runs, folder, tmp_path, monkeypatch):
    with pytest.raises(tk.InputError, match=r"there are .zarr, .parquet, .jsonl"):
        tk.export(runs, tmp_path / "x.csv")
    with pytest.raises(tk.InputError, match="of what are no transcripts"):
        tk.export(folder, tmp_path / "x.jsonl")
    with pytest.raises(tk.InputError, match=r"prompts= was given .*for .jsonl"):
        tk.export(runs, tmp_path / "x.parquet", prompts=PROMPTS)
    taken = runs.assign_coords(messages=("prompt", np.arange(6)))
    with pytest.raises(tk.InputError, match="the label 'messages' has the name of a field"):
        tk.export(taken, tmp_path / "x.jsonl")
    find = importlib.util.find_spec
    gone = ("zarr", "pyarrow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in gone else find(n))
    for name, library in (("x.zarr", "zarr"), ("y.parquet", "pyarrow")):
        with pytest.raises(tk.InputError, match=f"needs {library}, and that is not installed"):
            tk.export(runs, tmp_path / name)


@pytest.mark.parametrize("name", ["x.parquet", "x.zarr", "x.jsonl"])
def test_an_array_without_labels_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(tk.InputError, match=r"export was given <ndarray of float64.*tk\.traces"):
        inspect.unwrap(tk.export)(np.ones((2, 3)), tmp_path / name)


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_the_folder_of_an_export_is_made(name: str, runs: xr.Dataset, tmp_path: Path) -> None:
    assert tk.export(runs, tmp_path / "a" / "b" / name).is_file()
