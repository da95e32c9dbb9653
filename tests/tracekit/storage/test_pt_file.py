"""Vectors in .pt files: tables, single rows and dictionaries, whose layers must be known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tracekit.storage.provenance import read
from tracekit.storage.vector_files import read_pt


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
