"""Shared fixtures: the embedded model, a tiny random Llama, and a LoRA adapter for it."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from nnsight import TransformersModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import tracekit as tk
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model

# two processes of tests on two cores: more threads only make them wait for one another
torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Files of tests are read for tests alone; examples are in the packages."""
    return [collector for collector in (yield) if type(collector) is pytest.Module]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes collect the same tests: an address in a name is another in each."""
    wrong = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if wrong:
        raise pytest.UsageError(f"{wrong[0]} has an address in its name; give it ids=.")


@pytest.fixture(scope="session")
def embedded() -> TransformersModel:
    """The embedded SmolLM2-135M-Instruct, float32."""
    return tk.load("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer, loaded once."""
    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 4 blocks, dim 32, with the embedded model's tokenizer."""
    return tiny.build("Llama", tmp_path_factory.mktemp("models") / "tiny-llama", embedded_model())


@pytest.fixture(scope="session")
def tiny_lora(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with a B that is not zero, for `tiny_folder`."""
    return tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "tiny-lora")


@pytest.fixture(scope="session")
def tiny_llama(tiny_folder: Path) -> TransformersModel:
    """`tiny_folder`, loaded. Shared by all tests: leave its weights and adapters as they were."""
    return tk.load(tiny_folder, dtype="float32")


@pytest.fixture
def fresh_llama(tiny_folder: Path, words: PreTrainedTokenizerBase) -> TransformersModel:
    """`tiny_folder`, loaded for this test alone: its weights may be changed."""
    return tk.load(tiny_folder, dtype="float32", tokenizer=words)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of this test alone, 200 MB unless `request.param` says its size, to fill or lock."""
    path = tmp_path / "disk"
    path.mkdir()
    size = f"size={getattr(request, 'param', '200m')}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield path
    # a lazy array keeps its files open
    subprocess.run(["umount", "-l", str(path)], check=True)
