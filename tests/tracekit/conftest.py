"""What tests of edits share: prompts, what the plain model says to them, vectors to edit along."""

from __future__ import annotations

import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering


@pytest.fixture(scope="module")
def asked(tiny_llama: TransformersModel) -> xr.Dataset:
    return tk.encode(tiny_llama, steering.PROMPTS)


@pytest.fixture(scope="module")
def plain(tiny_llama: TransformersModel, asked: xr.Dataset) -> xr.Dataset:
    return tk.generate(tiny_llama, asked, max_new_tokens=steering.NEW, progress=False)


@pytest.fixture(scope="module")
def vectors(tiny_llama: TransformersModel) -> xr.DataArray:
    return steering.unit_vectors(tiny_llama)


@pytest.fixture(scope="module")
def norm(tiny_llama: TransformersModel, plain: xr.Dataset) -> float:
    return steering.mean_norm(tiny_llama, plain, steering.LAYER)
