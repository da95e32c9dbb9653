"""Files of former versions open under today's names."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage.vector_files import read_safetensors, write_safetensors

MADE = {"weights": "w", "ids": "i", "site": "residual"}


@pytest.fixture
def former():
    labels = {"method": ["mean_diff", "probe"], "layer": [3]}
    values = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    array = xr.DataArray(values, dims=("method", "layer", "dim"), coords=labels, name="vector")
    return tk.stamp(array, MADE)


def test_the_dim_has_todays_name_and_selects_by_keyword(former, tmp_path):
    vectors = tk.open(tk.save(former, tmp_path / "vectors.nc"))
    assert vectors.dims == ("extraction", "layer", "dim")
    np.testing.assert_array_equal(vectors.sel(extraction="probe"), former.values[1])
    assert not np.array_equal(vectors.sel(extraction="mean_diff"), former.values[1])
    written = write_safetensors(former, tmp_path / "vectors.safetensors")
    assert read_safetensors(written).dims == ("extraction", "layer", "dim")
    assert tk.read_vectors(written).identical(read_safetensors(written))


def test_a_label_and_a_dataset_are_renamed_and_a_users_own_label_is_not(former, tmp_path):
    one = tk.open(tk.save(former.isel(method=0), tmp_path / "one.nc"))
    assert one["extraction"].item() == "mean_diff"
    whole = former.to_dataset().assign(selected_method="probe").assign_attrs(former.attrs)
    assert tk.open(tk.save(whole, tmp_path / "two.nc"))["selected_extraction"].item() == "probe"
    mine = former.isel(method=0, drop=True).rename(layer="prompt")
    mine = mine.assign_coords(method=("prompt", ["by post"]))
    assert tk.open(tk.save(mine, tmp_path / "mine.nc"))["method"].values.tolist() == ["by post"]


def test_dims_that_are_methods_too_have_todays_names_and_a_users_own_keep_theirs(former, tmp_path):
    bands = xr.Dataset(
        {"null_quantile": ("quantile", [0.1, 0.9]), "promoted": ("rank", ["a", "b", "c"])},
        {"quantile": [0.05, 0.95]},
    )
    today = tk.open(tk.save(tk.stamp(bands, MADE), tmp_path / "bands.nc"))
    assert dict(today.sizes) == {"level": 2, "top": 3}
    assert today["null_quantile"].sel(level=0.95).item() == 0.9
    mine = former.isel(method=0, drop=True).quantile([0.05, 0.95], "dim")
    assert tk.open(tk.save(mine, tmp_path / "mine.nc")).dims == ("quantile", "layer")


def test_another_suffix_is_refused_by_name(former, tmp_path):
    with pytest.raises(tk.InputError, match=r"vectors\.mat.*the kinds are \.safetensors, \.gguf"):
        tk.write_vectors(former, tmp_path / "vectors.mat")
