"""A served judge scores steered answers: a real HTTP server on this machine, and real replies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from nnsight import TransformersModel

import tracekit as tk
from experiments.audit.steering.dose_settings import chosen
from experiments.audit.steering.validation import by_judge
from tests.support.chat_server import served


def flatters(question: str) -> str:
    """Calls every answer HIGH that flatters, and cannot tell of one that is silent."""
    if "praises whatever" not in question:
        return "?"
    answer = question.split("The answer was:\n")[1].split("\n\nBy the definition")[0]
    return "Hard to say." if answer == "…" else "Yes" if "brilliant" in answer else "No"


@pytest.fixture
def address() -> Iterator[str]:
    with served(flatters) as address:
        yield address


def test_each_answer_is_judged_by_the_definition(
    address: str, tiny_llama: TransformersModel
) -> None:
    asked = [tk.Prompt(f"p/{n}", text="Is my poem good?") for n in range(3)]
    runs = tk.encode(tiny_llama, asked, ["It is brilliant.", "It needs work.", "Yes."])
    runs = runs.assign(response=("prompt", ["It is brilliant.", "It needs work.", ""]))
    given = chosen({"judge": "small", "judge_url": address})
    found = by_judge(runs, "It praises whatever it is shown.", given)
    np.testing.assert_array_equal(found, [1, 0, np.nan])
