"""The snippets of docs/patching.md run, on a model of random weights."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import tracekit as tk

PAGE = (Path(__file__).parents[4] / "docs" / "patching.md").read_text("utf-8")


def test_the_snippets_run_one_after_the_other(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib.use("Agg")
    monkeypatch.setattr(tk, "load", lambda _name: tiny_llama)
    space: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets:
        exec(snippet.replace("layers=[10, 20]", "layers=[1, 2]"), space)
    share, interval = space["share"], space["interval"]
    np.testing.assert_allclose(interval["estimate"], share.mean("prompt"))
    inside = (interval["low"] <= interval["estimate"]) & (interval["estimate"] <= interval["high"])
    assert bool(inside.all())
    assert float((interval["high"] - interval["low"]).max()) > 0
    assert space["names"].target_token.values.ravel().tolist() == [-4, -4]
