"""Vectors through other tools' files and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
import torch
import xarray as xr
from damage import cuts, flips, outcomes

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


def test_scalar_labels_and_all_others_survive_safetensors(
    vectors: xr.DataArray, tmp_path: Path
) -> None:
    one = vectors.isel(trait=0, method=1).assign_coords(
        size=("layer", [1.5, 2.5, 3.5, 4.5]), seed=7, ours=True
    )
    one = one.rename("vector").assign_attrs(note="ä", pairs=np.int64(3))
    back = read_safetensors(write_safetensors(one, tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back, one.assign_attrs(pairs=3))
    assert back.trait.item() == "alignment/honesty"
    assert back.method.item() == "probe"
    with pytest.raises(AssertionError):
        xr.testing.assert_identical(back, one.assign_attrs(pairs=3).assign_coords(seed=8))
    numbered = vectors.isel(method=0, drop=True).rename(trait="seed").assign_coords(seed=[3, 1, 2])
    back = read_safetensors(write_safetensors(numbered, tmp_path / "n.safetensors"))
    xr.testing.assert_identical(back, numbered)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(
    vectors: xr.DataArray, tmp_path: Path, value: float
) -> None:
    wrong = vectors.copy()
    wrong[2, 1, 3, 5] = value
    with pytest.raises(ValueError, match=r"1 values are not finite.*'placebo/tense'.*'layer': 3"):
        write_safetensors(wrong, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"not finite.*'layer': 3, 'dim': 5"):
        write_gguf(wrong[2, 1, 1:].drop_vars(["trait", "method"]), tmp_path / "v.gguf", "llama")
    assert not list(tmp_path.iterdir())


def test_vectors_whose_labels_would_be_lost_are_not_written(
    vectors: xr.DataArray, tmp_path: Path
) -> None:
    path = tmp_path / "v.safetensors"
    with pytest.raises(ValueError, match=r"labels are missing.*assign_coords\(layer="):
        write_safetensors(vectors.drop_vars("layer"), path)
    with pytest.raises(ValueError, match=r"labels are \[1, 1, 2, 3\]"):
        write_gguf(vectors[0, 0].assign_coords(layer=[1, 1, 2, 3]), path, "llama")
    same = vectors.assign_coords(trait=["a:b", "a", "c"], method=["c", "b:c"])
    with pytest.raises(ValueError, match="joined by ':'"):
        write_safetensors(same, path)
    mlp = stamp(vectors[0, 0, 1:], {"source": {"weights": "abc", "site": "mlp"}})
    with pytest.raises(ValueError, match="of the site 'mlp' was asked for"):
        write_gguf(mlp, path, "llama")
    assert not list(tmp_path.iterdir())


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


def _kept(content: object, folder: Path) -> Path:
    torch.save(content, folder / "x.pt")
    return folder / "x.pt"


def test_a_table_says_which_argument_is_due_and_reads_right_with_it(tmp_path: Path) -> None:
    table = torch.arange(40.0).reshape(5, 8)
    path = _kept(table, tmp_path)
    with pytest.raises(ValueError, match=r"table of 5 rows.*Give depth= .* or first_layer="):
        read_pt(path)
    # hidden states: the embedding output first, the normed one last
    found = read_pt(path, depth=4)
    assert found.layer.values.tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(found.sel(layer=0), table[1])
    # a row for each block
    found = read_pt(path, depth=5)
    assert found.layer.values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found.sel(layer=0), table[0])
    assert not np.array_equal(found.sel(layer=0), table[1])
    # some blocks
    assert read_pt(path, first_layer=12).layer.values.tolist() == [12, 13, 14, 15, 16]
    # examples, or another model's
    for given in ({"depth": 30}, {"first_layer": 28, "depth": 30}, {"first_layer": -2}):
        with pytest.raises(ValueError, match=r"x\.pt.*Give depth="):
            read_pt(path, **given)
    with pytest.raises(ValueError, match="takes first_layer= or depth="):
        read_pt(path, layer=3)


def test_one_vector_needs_its_layer(tmp_path: Path) -> None:
    row = torch.arange(8.0, requires_grad=True)
    for content in (row, row.detach()[None].bfloat16()):
        path = _kept(content, tmp_path)
        with pytest.raises(ValueError, match="Give layer= alone"):
            read_pt(path)
        found = read_pt(path, layer=12)
        assert found.layer.values.tolist() == [12]
        np.testing.assert_array_equal(found.sel(layer=12), np.arange(8.0))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8\)"):
        read_pt(_kept(torch.zeros(2, 3, 8), tmp_path), depth=2)


def test_dictionaries_name_their_layers_and_their_site(tmp_path: Path) -> None:
    rows = {12: torch.ones(8, dtype=torch.float16), 3: torch.zeros(8, dtype=torch.float16)}
    named = {
        "residual": [rows, {"layer_activations": rows, "layer_type": "decoder_block"}],
        "mlp": [{"layer_activations": rows, "layer_type": "mlp"}],
        "attention": [{"layer_activations": rows, "layer_type": "self_attn"}],
    }
    for form in ("{}", "layer_{}", "model.layers.{}", "blocks.{}.resid_post"):
        named["residual"].append({form.format(n): row for n, row in rows.items()})
    named["mlp"].append({f"model.layers.{n}.mlp": row for n, row in rows.items()})
    named["attention"].append({f"layers.{n}.self_attn": row for n, row in rows.items()})
    for site, contents in named.items():
        for content in contents:
            found = read_pt(_kept(content, tmp_path))
            assert found.layer.values.tolist() == [3, 12]
            assert float(found.sel(layer=12).sum()) == 8
            assert read(found)["site"] == site
    norms = {"layer_activations": rows, "layer_type": "input_layernorm"}
    with pytest.raises(ValueError, match=r"\['input_layernorm'\].*Give site="):
        read_pt(_kept(norms, tmp_path))
    assert read(read_pt(tmp_path / "x.pt", site="norm"))["site"] == "norm"
    assert read(read_pt(_kept(rows, tmp_path), site="mlp"))["site"] == "mlp"
    with pytest.raises(ValueError, match="site='mlp' was given, and it says 'attention'"):
        read_pt(_kept(named["attention"][0], tmp_path), site="mlp")
    with pytest.raises(ValueError, match=r"layers \[12\], and a model of depth=12"):
        read_pt(_kept(rows, tmp_path), depth=12)
    with pytest.raises(ValueError, match="names its layers itself"):
        read_pt(_kept(rows, tmp_path), first_layer=0)


class _Object:
    """Something that only pickle can hold."""


def test_pt_files_with_objects_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    torch.save({"vector": _Object()}, tmp_path / "object.pt")
    with pytest.raises(ValueError, match="could run code"):
        read_pt(tmp_path / "object.pt")
    for content in (
        {"weights": torch.zeros(8)},
        {1: torch.zeros(8), "1": torch.zeros(8)},
        {"layer_1_2": torch.zeros(8)},
        {1: torch.zeros(8), 2: [1.0]},
        {True: torch.zeros(8)},
        {-1: torch.zeros(8)},
        [1],
        {},
    ):
        with pytest.raises(ValueError, match="dictionary from layer to a tensor"):
            read_pt(_kept(content, tmp_path))
    for content, words in (
        ({1: torch.zeros(8), 2: torch.zeros(4)}, r"shapes \[\(4,\), \(8,\)\]"),
        ({1: torch.zeros(2, 8)}, r"shapes \[\(2, 8\)\]"),
        ({1: torch.zeros(8, dtype=torch.int64)}, "torch.int64"),
        ({1: torch.zeros(8).to_sparse()}, "torch.sparse_coo"),
        ({1: torch.full((8,), torch.nan)}, r"layers \[1\] are not finite"),
        ({1: torch.full((8,), 1e300, dtype=torch.float64)}, "not finite as float32"),
    ):
        with pytest.raises(ValueError, match=rf"x\.pt.*{words}"):
            read_pt(_kept(content, tmp_path))


def _bare(read_file: Any) -> Any:
    # the provenance of such a file is its name
    return lambda path: read_file(path).drop_attrs()


@pytest.mark.parametrize("form", ["safetensors", "gguf", "pt"])
def test_every_damaged_byte_and_length_of_a_vector_file_is_right_or_one_line(
    vector: xr.DataArray, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"v.{form}"
    if form == "pt":
        torch.save({n: torch.tensor(vector.sel(layer=n).values) for n in (1, 2, 3)}, path)
    else:
        given = {"gguf": (write_gguf, ("llama",)), "safetensors": (write_safetensors, ())}[form]
        given[0](vector, path, *given[1])
    reader = {"gguf": read_gguf, "safetensors": read_safetensors, "pt": read_pt}[form]
    read_file = _bare(reader) if form == "pt" else reader
    content, right = path.read_bytes(), read_file(path)
    every = range(0, len(content), 1 if form != "pt" else 7)
    changed = outcomes(flips(content, every), tmp_path, f".{form}", read_file, right)
    # what is right all the same: a letter of the checksum's name, and what zip files say twice
    assert changed["right"] <= (0.7 * len(every) if form == "pt" else len("tracekit.sha256"))
    lengths = range(0, len(content), 7)
    cut = outcomes(cuts(content, lengths), tmp_path, f".{form}", read_file, right)
    assert cut["right"] <= (10 if form == "pt" else 0)
    assert cut["refused"] > 60


def test_a_file_without_a_checksum_is_read(vectors: xr.DataArray, tmp_path: Path) -> None:
    """As older versions wrote it."""
    about = {
        "dims": ["trait"],
        "labels": [["a"], ["b"]],
        "layers": [1, 2, 3, 4],
    }
    values = {name: vectors.values[n, 0] for n, name in enumerate("ab")}
    metadata = {"tracekit": json.dumps(about), "provenance": vectors.attrs["provenance"]}
    safetensors.numpy.save_file(values, tmp_path / "v.safetensors", metadata)
    found = read_safetensors(tmp_path / "v.safetensors")
    assert found.dims == ("trait", "layer", "dim")
    np.testing.assert_array_equal(found, vectors[:2, 0])
    assert not np.array_equal(found, vectors[1:, 0])
