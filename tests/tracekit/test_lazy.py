"""What an import brings with it: a file opens without torch, and each name is there when asked."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
import traits
from tracekit.storage.provenance import stamp

HEAVY = ("torch", "transformers", "nnsight", "peft", "sklearn", "dask.array", "jaxtyping")


def loaded_by(code: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter holds after the code."""
    return eval(fresh(f"{code}\nimport sys; print([n for n in {HEAVY} if n in sys.modules])"))


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def projections(tmp_path):
    array = xr.DataArray(np.zeros((2, 3)), dims=("prompt", "trait"), name="projection")
    array = array.assign_coords(prompt=["a", "b"], trait=["t/1", "t/2", "t/3"])
    return tk.save(stamp(array, {"weights": "w", "ids": "i"}), tmp_path / "projections.nc")


def test_opening_a_file_needs_neither_torch_nor_nnsight(projections):
    assert loaded_by(f"import tracekit; tracekit.open({str(projections)!r}).values.sum()") == []
    assert loaded_by("import traits, tracekit; dir(tracekit), tracekit.__all__, dir(traits)") == []


def test_the_first_call_brings_what_it_needs():
    assert "torch" in loaded_by("from tracekit import inputs")
    assert loaded_by("from tracekit import read_prompts") == []


@pytest.mark.parametrize("package", [tk, traits])
def test_every_public_name_is_there_once_and_is_the_packages_own(package):
    # nnsight, loaded by now, mounts a `save` on every object
    for name in package.__all__:
        value = getattr(package, name)
        assert getattr(value, "__self__", None) is not package
        assert vars(package)[name] is value
        assert name in dir(package)
    assert list(package.__all__) == sorted(package.__all__)


def test_a_name_that_nnsight_mounts_on_every_object_is_still_the_packages_own():
    code = "import nnsight, sys, tracekit; print(hasattr(sys, 'save'), tracekit.save.__module__)"
    assert fresh(code) == "True tracekit.storage.store"


def test_a_model_loads_without_the_readers_of_files(tiny_folder):
    code = f"import tracekit; tracekit.load({str(tiny_folder)!r}); import sys"
    files = "'xarray', 'netCDF4', 'h5py'"
    assert fresh(f"{code}; print([n for n in ({files}) if n in sys.modules])") == "[]"


def test_another_name_is_refused_as_a_modules_own_would_be():
    with pytest.raises(AttributeError, match="module 'tracekit' has no attribute 'captures'"):
        _ = tk.captures
