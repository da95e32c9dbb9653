"""Labelled vectors as safetensors, for this reader and for others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import xarray as xr

from tracekit.storage.vector_files import read_safetensors, write_safetensors


def test_safetensors_there_and_back(vectors: xr.DataArray, tmp_path: Path) -> None:
    back = read_safetensors(write_safetensors(vectors, tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back, vectors)
    with pytest.raises(AssertionError):
        xr.testing.assert_identical(back, vectors[::-1])
    single = vectors.isel(trait=0, extraction=1, drop=True)
    xr.testing.assert_identical(
        read_safetensors(write_safetensors(single, tmp_path / "s.safetensors")), single
    )


def test_safetensors_are_named_for_other_readers(vectors: xr.DataArray, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    plain = load_file(write_safetensors(vectors, tmp_path / "v.safetensors"))
    assert plain["placebo/tense:probe"].shape == (4, 8)
    save_file({"other": torch.zeros(2)}, str(tmp_path / "o.safetensors"))
    with pytest.raises(ValueError, match=r"it holds \['other'\]; a dictionary from layer"):
        read_safetensors(tmp_path / "o.safetensors")


def test_scalar_labels_and_all_others_survive_safetensors(
    vectors: xr.DataArray, tmp_path: Path
) -> None:
    one = vectors.isel(trait=0, extraction=1).assign_coords(
        size=("layer", [1.5, 2.5, 3.5, 4.5]), seed=7, ours=True
    )
    one = one.rename("vector").assign_attrs(note="ä", pairs=np.int64(3))
    back = read_safetensors(write_safetensors(one, tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back, one.assign_attrs(pairs=3))
    assert back.trait.item() == "alignment/honesty"
    assert back.extraction.item() == "probe"
    with pytest.raises(AssertionError):
        xr.testing.assert_identical(back, one.assign_attrs(pairs=3).assign_coords(seed=8))
    one = vectors.isel(extraction=0, drop=True)
    numbered = one.rename(trait="seed").assign_coords(seed=[3, 1, 2])
    back = read_safetensors(write_safetensors(numbered, tmp_path / "n.safetensors"))
    xr.testing.assert_identical(back, numbered)


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
