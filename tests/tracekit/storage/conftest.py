"""What tests of vector files share: one vector, and several traits' by layer."""

import pytest
import xarray as xr

from tests.support import vector_files


@pytest.fixture
def vectors() -> xr.DataArray:
    return vector_files.vectors()


@pytest.fixture
def vector() -> xr.DataArray:
    return vector_files.vector()
