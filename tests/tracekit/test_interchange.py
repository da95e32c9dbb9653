"""Vectors through other tools' files and back."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import xarray as xr

from tracekit.interchange import (
    read_gguf,
    read_pt,
    read_safetensors,
    write_gguf,
    write_safetensors,
)
from tracekit.provenance import read, stamp


@pytest.fixture
def vectors() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(3, 2, 4, 8)).astype(np.float32)
    coords = {
        "trait": ["alignment/honesty", "alignment/sycophancy", "placebo/tense"],
        "method": ["mean_diff", "probe"],
        "layer": np.arange(4, dtype=np.int32),
        "dim": np.arange(8),
    }
    array = xr.DataArray(values, dims=("trait", "method", "layer", "dim"), coords=coords)
    return stamp(array, {"source": {"weights": "abc", "tokenizer": "def"}})


@pytest.fixture
def vector(vectors: xr.DataArray) -> xr.DataArray:
    labels = {"trait": "placebo/tense", "method": "probe", "layer": slice(1, None)}
    return vectors.sel(labels, drop=True)


def test_gguf_has_the_names_and_shapes_of_repengs_files(
    vector: xr.DataArray, tmp_path: Path
) -> None:
    path = write_gguf(vector, tmp_path / "v.gguf", "llama")
    reader = gguf.GGUFReader(path)
    assert [t.name for t in reader.tensors] == ["direction.1", "direction.2", "direction.3"]
    assert all(t.shape.tolist() == [8] for t in reader.tensors)
    assert {t.tensor_type for t in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    texts = {
        name: bytes(reader.get_field(name).parts[-1]).decode()
        for name in ("general.architecture", "controlvector.model_hint")
    }
    assert texts == {"general.architecture": "controlvector", "controlvector.model_hint": "llama"}
    assert int(reader.get_field("controlvector.layer_count").parts[-1][0]) == 3
    np.testing.assert_array_equal(reader.tensors[1].data, vector.sel(layer=2))
    assert not np.array_equal(reader.tensors[1].data, vector.sel(layer=1))


def test_gguf_there_and_back(vector: xr.DataArray, tmp_path: Path) -> None:
    back = read_gguf(write_gguf(vector, tmp_path / "v.gguf", "llama"))
    assert back.attrs["model_type"] == "llama"
    assert read(back) == read(vector)
    xr.testing.assert_equal(back.drop_attrs(), vector.drop_attrs())
    with pytest.raises(AssertionError):
        xr.testing.assert_equal(back.drop_attrs(), -vector.drop_attrs())


def test_a_file_as_repeng_writes_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "r.gguf"), "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (11, 2):  # repeng goes from the last layer down
        writer.add_tensor(f"direction.{layer}", np.full(8, layer, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "r.gguf")
    assert found.layer.values.tolist() == [2, 11]
    assert found.sel(layer=11).values.tolist() == [11.0] * 8
    assert found.attrs["model_type"] == "mistral"


def test_gguf_refuses_layer_0_other_dims_and_other_files(
    vectors: xr.DataArray, vector: xr.DataArray, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"layers from 1 on, not \[0\]"):
        write_gguf(vectors[0, 0].drop_vars(["trait", "method"]), tmp_path / "v.gguf", "llama")
    with pytest.raises(ValueError, match=r"this one has \('trait', 'method', 'layer', 'dim'\)"):
        write_gguf(vectors, tmp_path / "v.gguf", "llama")
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"architecture 'llama' with the tensors \['token_embd"):
        read_gguf(tmp_path / "m.gguf")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_gguf(tmp_path / "none.gguf")


def test_safetensors_there_and_back(vectors: xr.DataArray, tmp_path: Path) -> None:
    back = read_safetensors(write_safetensors(vectors, tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back, vectors)
    with pytest.raises(AssertionError):
        xr.testing.assert_identical(back, vectors[::-1])
    single = vectors.isel(trait=0, method=1, drop=True)
    xr.testing.assert_identical(
        read_safetensors(write_safetensors(single, tmp_path / "s.safetensors")), single
    )


def test_safetensors_are_named_for_other_readers(vectors: xr.DataArray, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    plain = load_file(write_safetensors(vectors, tmp_path / "v.safetensors"))
    assert plain["placebo/tense:probe"].shape == (4, 8)
    save_file({"other": torch.zeros(2)}, str(tmp_path / "o.safetensors"))
    with pytest.raises(ValueError, match=r"tensors \['other'\] and no labels"):
        read_safetensors(tmp_path / "o.safetensors")


def test_pt_files_of_other_libraries(tmp_path: Path) -> None:
    table = torch.arange(40.0).reshape(5, 8)
    torch.save(table, tmp_path / "persona.pt")
    found = read_pt(tmp_path / "persona.pt")
    assert found.layer.values.tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(found.sel(layer=0), table[1])
    rows = {12: torch.ones(8, dtype=torch.float16), 3: torch.zeros(8, dtype=torch.float16)}
    for content in (
        rows,
        {"layer_activations": rows, "layer_type": "decoder_block"},
        {f"layer_{n}": row for n, row in rows.items()},
    ):
        torch.save(content, tmp_path / "steering.pt")
        found = read_pt(tmp_path / "steering.pt")
        assert found.layer.values.tolist() == [3, 12]
        assert float(found.sel(layer=12).sum()) == 8


class _Object:
    """Something that only pickle can hold."""


def test_pt_files_with_objects_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    torch.save({"vector": _Object()}, tmp_path / "object.pt")
    with pytest.raises(ValueError, match="could run code"):
        read_pt(tmp_path / "object.pt")
    for content in ({"weights": torch.zeros(8)}, {1: torch.zeros(8), 2: torch.zeros(4)}, [1]):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="dictionary from layer to a tensor"):
            read_pt(tmp_path / "other.pt")
