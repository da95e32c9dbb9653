"""GGUF control vectors as llama.cpp and repeng have them, of every type of tensor."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import xarray as xr

from tracekit.storage.provenance import read
from tracekit.storage.vector_files import read_gguf, write_gguf


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
        write_gguf(vectors[0, 0].drop_vars(["trait", "extraction"]), tmp_path / "v.gguf", "llama")
    with pytest.raises(ValueError, match=r"this one has \('trait', 'extraction', 'layer', 'dim'\)"):
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


def _written(path: Path, data: np.ndarray, kind: gguf.GGMLQuantizationType) -> Path:
    writer = gguf.GGUFWriter(str(path), "controlvector")
    floats = kind.name[0] in "FI" and kind.name[1:].isdigit()
    writer.add_tensor("direction.3", data, raw_dtype=None if floats else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_NUMPY = {"F64": "f8", "F32": "f4", "F16": "f2", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


_NO_FLOATS = {"I8", "I16", "I32", "I64", "Q8_1", "Q8_K", "Q1_0", "NVFP4"}


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_every_type_of_gguf_tensor_is_read_right_or_refused_by_name(
    kind: gguf.GGMLQuantizationType, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if kind.name in _NUMPY:
        data = rng.normal(0, 9, 512).astype(_NUMPY[kind.name])
    else:
        # bytes below 48 make scales that are small numbers of 16 bits
        data = rng.integers(0, 48, 512 // block * size, np.uint8)
    path = _written(tmp_path / "v.gguf", data, kind)
    try:
        plain = kind.name in ("F64", "F32", "F16")
        right = data.astype(np.float32) if plain else gguf.quants.dequantize(data, kind)
    except NotImplementedError:
        assert kind.name in _NO_FLOATS
        with pytest.raises(ValueError, match=rf"v\.gguf.*direction\.3 is {kind.name}, which gguf"):
            read_gguf(path)
        return
    found = read_gguf(path).sel(layer=3)
    assert found.dtype == np.float32
    assert found.shape == (512,)
    np.testing.assert_array_equal(found, right)
    if kind.name in ("BF16", "Q8_0", "Q4_0"):
        values = rng.normal(size=512).astype(np.float32)
        again = _written(tmp_path / "q.gguf", gguf.quants.quantize(values, kind), kind)
        bound = {"BF16": 0.02, "Q8_0": 0.03, "Q4_0": 0.3}[kind.name]
        assert np.abs(read_gguf(again).sel(layer=3) - values).max() < bound
        assert np.abs(read_gguf(again).sel(layer=3) + values).max() > bound
