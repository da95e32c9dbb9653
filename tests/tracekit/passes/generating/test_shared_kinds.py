"""What is shared says what whole rows say, on architectures whose caches and masks differ."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import tracekit as tk
from tests.support.models import tiny, tiny_configurations
from tracekit.passes.generating import generation, shared_prompts
from tracekit.passes.generating.stepping import shared_steps
from tracekit.transcripts.padded import Batch

STEPS = 24
WORDS = tiny.tokenizer(["Why is the sea so very blue?", "Name the three longest rivers."])
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WINDOWED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
# what shares samples' prompts, and what shares a beginning too
KINDS: dict[str, tuple[str, dict[str, Any], bool, bool]] = {
    "llama": ("llama", {}, True, True),
    "bloom": ("bloom", {}, True, True),
    "gemma3": ("gemma3_text", WINDOWED, True, False),
    "olmo3": ("olmo3", WINDOWED, True, False),
    "falcon with alibi": ("falcon", {"alibi": True}, True, False),
    "gpt-neo": ("gpt_neo", {"window_size": 8}, True, False),
    "rembert": ("rembert", {"is_decoder": True}, False, False),
}


def rows(begins: int, lengths: tuple[int, ...]) -> Batch:
    """Rows of these lengths whose first `begins` ids are the same, left-padded."""
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        apart = torch.arange(length) * 37 + 11 * row
        apart[:begins] = torch.arange(begins) * 5
        ids[row, width - length :] = apart % (len(WORDS) - 5) + 4
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    names = tuple(map(str, range(len(lengths))))
    return Batch(ids, mask, torch.full((len(lengths),), width), names)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, bool, bool]:
    name, more, samples, begun = KINDS[request.param]
    settings = {**tiny_configurations.settings(name, len(WORDS), ENDS), **more}
    return tk.load(tiny.module(name, settings), tokenizer=WORDS), samples, begun


@pytest.mark.parametrize(
    ("begins", "lengths", "what"),
    [(18, (18,) * 4, "samples"), (14, (18,) * 4, "begun"), (14, (18, 17, 16, 15), "begun")],
)
def test_shared_rows_say_what_whole_rows_say(
    kind: tuple[Any, bool, bool], begins: int, lengths: tuple[int, ...], what: str
) -> None:
    model, samples, begun = kind
    batch = rows(begins, lengths)
    shares = samples if what == "samples" else begun
    found = generation._steps(model, batch, STEPS, share=True)
    assert (found is not None) == shares
    if found is None:
        return
    whole = generation._steps(model, batch, STEPS)
    assert whole is not None
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    # rows are not all alike where they should differ, nor the steps of one
    assert float((whole[:, 0] - whole[:, 1]).abs().max()) > 1e-2
    assert what == "samples" or float((whole[0] - whole[1]).abs().max()) > 1e-2


def test_a_proof_says_no_and_does_not_fail(kind: tuple[Any, bool, bool]) -> None:
    model, _, begun = kind
    tk.generate(model, tk.encode(model, ["Why?"], template="raw"), max_new_tokens=2, progress=False)
    step = functools.partial(generation._steps, share=True)
    assert shared_steps(model, step) == begun
    assert shared_prompts.beginning(rows(14, (18, 17, 16, 15)))[1] == 14
