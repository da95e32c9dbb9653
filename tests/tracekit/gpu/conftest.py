"""What tests on a CUDA device share: a wide tiny Llama there and on the CPU, one LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import QUIET
from tests.support.models import tiny

CPU = {"device_map": "cpu"}


@pytest.fixture(scope="module")
def folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for blocks of 4 bits."""
    return tiny.build("Llama", tmp_path_factory.mktemp("models") / "wide", words, widen=4)


@pytest.fixture(scope="module")
def lora(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_lora(folder, tmp_path_factory.mktemp("adapters") / "wide")


@pytest.fixture(scope="module")
def gpu(folder: Path, words: Any) -> Any:
    return tk.load(folder, dtype="float32", tokenizer=words)


@pytest.fixture(scope="module")
def cpu(folder: Path, words: Any) -> Any:
    return tk.load(folder, dtype="float32", tokenizer=words, **CPU)


@pytest.fixture(scope="module")
def runs(cpu: Any) -> xr.Dataset:
    return forwards.encoded(cpu)


@pytest.fixture(scope="module")
def expected(cpu: Any, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(cpu, runs, **QUIET)
