"""What tests of the audit share: flags that put the tiny Llama in its place."""

from pathlib import Path

import pytest

from tests.support.models import tiny


@pytest.fixture(scope="module")
def given(
    tiny_folder: Path, tiny_lora: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The flags that put the tiny Llama in the place of the embedded model."""
    control = tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "other", seed=2)
    flags = ["--preset", "tiny", "--model", str(tiny_folder), "--traits", "sycophancy,concealment"]
    return [*flags, "--organism", str(tiny_lora), "--control", str(control)]
