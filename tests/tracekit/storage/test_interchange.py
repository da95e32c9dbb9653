"""Vectors through other tools' files and back, whatever the form: holes, labels, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.support.damage import cuts, flips, outcomes
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files import (
    read_gguf,
    read_pt,
    read_safetensors,
    write_gguf,
    write_safetensors,
)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(
    vectors: xr.DataArray, tmp_path: Path, value: float
) -> None:
    wrong = vectors.copy()
    wrong[2, 1, 3, 5] = value
    with pytest.raises(ValueError, match=r"1 values are not finite.*'placebo/tense'.*'layer': 3"):
        write_safetensors(wrong, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"not finite.*'layer': 3, 'dim': 5"):
        write_gguf(wrong[2, 1, 1:].drop_vars(["trait", "extraction"]), tmp_path / "v.gguf", "llama")
    assert not list(tmp_path.iterdir())


def test_vectors_whose_labels_would_be_lost_are_not_written(
    vectors: xr.DataArray, tmp_path: Path
) -> None:
    path = tmp_path / "v.safetensors"
    with pytest.raises(ValueError, match=r"labels are missing.*assign_coords\(layer="):
        write_safetensors(vectors.drop_vars("layer"), path)
    with pytest.raises(ValueError, match=r"labels are \[1, 1, 2, 3\]"):
        write_gguf(vectors[0, 0].assign_coords(layer=[1, 1, 2, 3]), path, "llama")
    same = vectors.assign_coords(trait=["a:b", "a", "c"], extraction=["c", "b:c"])
    with pytest.raises(ValueError, match="joined by ':'"):
        write_safetensors(same, path)
    mlp = stamp(vectors[0, 0, 1:], {"source": {"weights": "abc", "site": "mlp"}})
    with pytest.raises(ValueError, match="of the site 'mlp' was asked for"):
        write_gguf(mlp, path, "llama")
    assert not list(tmp_path.iterdir())


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
