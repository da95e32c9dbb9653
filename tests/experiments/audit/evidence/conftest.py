"""A run with six held-out kinds of prompt, as the phases with a model leave it."""

import pytest

from experiments.audit.evidence.audit import Audit, read_audit
from tests.support.oracles.planted_run import BIASES, build

SIX = {**BIASES, **dict.fromkeys(("tea", "rain", "chess", "jazz"), "held_out")}


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """The audit of that run; its numbers are made when asked for."""
    folder = tmp_path_factory.mktemp("six") / "run"
    return read_audit(folder, build(folder, effect=1.0, biases=SIX))
