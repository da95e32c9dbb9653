"""What is captured while a model generates, where an MLP takes all its tokens as one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracekit as tk
from tests.support.models import tiny

PROMPTS = ["Hi.", "Name three fruits that are red."]


@pytest.fixture(scope="module")
def opt(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny.build("OPT", tmp_path_factory.mktemp("models") / "opt", words)
    return tk.load(folder, dtype="float32", tokenizer=words)


@pytest.mark.parametrize("site", ["mlp", "mlp_hidden", "attention"])
def test_each_step_of_opt_is_that_of_the_replay(opt: Any, site: str) -> None:
    asked = tk.encode(opt, PROMPTS, template="raw")
    options: dict[str, Any] = {"site": site, "tokens": "all", "progress": False}
    runs, steps = tk.capture_during(opt, asked, [1], max_new_tokens=3, **options)
    replay = tk.capture(opt, runs, [1], **options).sel(prompt=steps.prompt, token=steps.token)
    there = steps.notnull().values
    # each row's last token was said and never read
    assert there.any((2, 3)).sum() == (runs.token_id >= 0).sum() - len(PROMPTS)
    scale = float(abs(replay).max())
    np.testing.assert_allclose(steps.values[there], replay.values[there], atol=1e-4 * scale)
    moved = np.roll(replay.values, 1, 1)[there]
    assert not np.allclose(steps.values[there], moved, atol=1e-2 * scale, equal_nan=True)
