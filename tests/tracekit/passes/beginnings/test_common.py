"""Captures whose rows all begin alike (a system message): that is read once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support.forwards import QUIET
from tests.support.models import tiny
from tracekit.passes.beginnings import planning, prompts_once
from tracekit.storage.provenance import read

SYSTEM = {"role": "system", "content": "Be brief, and say what the sea would say of it. " * 3}
ASKED = ["Why is it that the sea is so very blue, and green at times?", "Who is it that asks?"]
SAID = ["It is not, at night.", "Me.", "There are more than three of those, and none is long."]
# rows of unequal length are one batch of this budget
ONCE: dict[str, Any] = {"share_prompts": True, "token_budget": 512, **QUIET}


def under_a_system_message(model: Any, samples: int, system: Any = SYSTEM) -> xr.Dataset:
    """Responses of unequal length to two prompts, under one system message."""
    rows, responses = [], []
    for number, text in enumerate(ASKED):
        messages = [system, {"role": "user", "content": text}]
        for k in range(samples):
            rows.append(tk.Prompt(f"{number}#{k}", messages=messages))
            responses.append(SAID[(number + k) % len(SAID)])
    return tk.encode(model, rows, responses=responses)


def sizes(runs: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens each row has before the last of its prompt, and from there on."""
    before = runs.prompt_length.values - 1
    return before, (runs.token_id.values >= 0).sum(1) - before


def common_of(runs: xr.Dataset) -> int:
    texts = [row[row >= 0] for row in runs.token_id.values]
    here = 0
    while len({text[here] for text in texts}) == 1:
        here += 1
    return here


def test_it_is_read_once_and_behind_it_each_prompt(tiny_llama: Any, counted: list[int]) -> None:
    assert prompts_once.may_share(tiny_llama)
    runs = under_a_system_message(tiny_llama, samples=3)
    (before, after), common = sizes(runs), common_of(runs)
    assert before.min() > common > before.max() / 2
    counted.clear()
    once = tk.capture(tiny_llama, runs, [2], **ONCE)
    batches = planning.plan(runs, ONCE["token_budget"]).batches
    # the three samples of a prompt side by side
    assert sorted(sorted(rows) for rows in batches) == [[0, 1, 2], [3, 4, 5]]
    apart = [(before[rows].max() - common, 3 * after[rows].max()) for rows in batches]
    assert counted == [common, *(n for pair in apart for n in pair)]
    assert read(once)["batches"]["common"] == common
    whole = tk.capture(tiny_llama, runs, [2], **QUIET)
    xr.testing.assert_allclose(once, whole, atol=2e-5)
    # and not the values of another row
    assert float(abs(once.roll(prompt=1, roll_coords=False) - whole).max()) > 1e-2


def test_it_is_read_once_a_capture_and_not_once_a_batch(
    tiny_llama: Any, counted: list[int], tmp_path: Path
) -> None:
    assert prompts_once.may_share(tiny_llama)
    runs = under_a_system_message(tiny_llama, samples=1)
    (before, after), common = sizes(runs), common_of(runs)
    rest = sorted((before + after - common).tolist())
    options = {**ONCE, "token_budget": rest[-1]}
    counted.clear()
    once = tk.capture(tiny_llama, runs, [2], path=tmp_path / "a", **options)
    # each row is a batch: what is before it is not in its budget
    assert counted == [common, *reversed(rest)]
    xr.testing.assert_allclose(once, tk.capture(tiny_llama, runs, [2], **QUIET), atol=2e-5)
    counted.clear()
    tk.capture(tiny_llama, runs, [2], path=tmp_path / "a", **options)
    # all is there: nothing is read
    assert counted == []


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES])
def test_architectures(name: str, samples: int, tiny_llama: Any) -> None:
    kind, settings = tiny.ARCHITECTURES[name]
    words = tiny_llama.tokenizer
    given = {**settings, "vocab_size": len(words), "pad_token_id": words.pad_token_id}
    model = tk.load(tiny.module(kind, given), tokenizer=words)
    runs = under_a_system_message(model, samples)
    asked = {"window": tk.Request(), "likely": tk.Request(site="logprob", tokens=slice(0, None))}
    once = tk.capture_many(model, runs, asked, **ONCE)
    whole = tk.capture_many(model, runs, asked, **QUIET)
    # a window that is narrower than the prompt is kept by another kind of layer
    common = read(once["window"])["batches"].get("common", 0)
    assert common == ("sliding_window" not in settings) * common_of(runs)
    for found, expected in zip(once.values(), whole.values(), strict=True):
        xr.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_same_words_under_another_message_have_other_values(tiny_llama: Any) -> None:
    """A twin of the first: were what is common not read, or another's, this would not be seen."""
    other = {"role": "system", "content": "Be long, and say what the wind would say of it. " * 3}
    runs, apart = (under_a_system_message(tiny_llama, 1, one) for one in (SYSTEM, other))
    once, elsewhere = (
        tk.capture(tiny_llama, each, [2], tokens=slice(-1, None), **ONCE) for each in (runs, apart)
    )
    assert float(np.nanmin(abs(once.values - elsewhere.values).max(-1))) > 1e-2


def test_prompts_that_are_all_common_leave_their_last_token(
    tiny_llama: Any, counted: list[int]
) -> None:
    assert prompts_once.may_share(tiny_llama)
    rows = [tk.Prompt(f"x#{k}", text=ASKED[0]) for k in range(3)]
    runs = tk.encode(tiny_llama, rows, responses=SAID)
    before, after = sizes(runs)
    counted.clear()
    once = tk.capture(tiny_llama, runs, [2], **ONCE)
    batches = planning.plan(runs, ONCE["token_budget"]).batches
    assert counted == [before[0], *(len(rows) * after[rows].max() for rows in batches)]
    xr.testing.assert_allclose(once, tk.capture(tiny_llama, runs, [2], **QUIET), atol=2e-5)


def test_one_prompt_that_is_all_common_beside_others(tiny_llama: Any) -> None:
    """A prompt whose every token others begin with has none of its own before its last."""
    runs = under_a_system_message(tiny_llama, samples=1)
    ids, common = runs.token_id.values, common_of(runs)
    first = ids[0][ids[0] >= 0][: common + 2]
    short = np.full((1, ids.shape[1]), -1)
    columns = runs.token.values
    short[0, np.flatnonzero(columns < 0)[-common - 1 :]] = first[: common + 1]
    short[0, np.flatnonzero(columns >= 0)[0]] = first[-1]
    labels = {"prompt": ["short"], "token": columns}
    more = xr.Dataset(
        {"token_id": (("prompt", "token"), short)},
        coords={**labels, "prompt_length": ("prompt", np.array([common + 1], np.int32))},
    )
    plain = runs[["token_id"]].drop_vars([n for n in runs.coords if n not in more.coords])
    both = xr.concat([plain, more], "prompt", combine_attrs="override").assign_attrs(runs.attrs)
    assert sizes(both)[0].min() == common
    asked = {"layers": [2], "tokens": slice(-1, None), "reduce": "mean"}
    once = tk.capture(tiny_llama, both, **asked, **ONCE)
    assert read(once)["batches"]["common"] == common
    xr.testing.assert_allclose(once, tk.capture(tiny_llama, both, **asked, **QUIET), atol=2e-5)


def test_behind_the_embedding_alone_rows_are_whole(tiny_llama: Any, counted: list[int]) -> None:
    assert prompts_once.may_share(tiny_llama)
    runs = under_a_system_message(tiny_llama, samples=1)
    once = tk.capture(tiny_llama, runs, [-1], **ONCE)
    assert not planning.shared(read(once)["batches"])
    xr.testing.assert_equal(
        once, tk.capture(tiny_llama, runs, [-1], **ONCE | {"share_prompts": False})
    )


def test_the_same_batches_behind_another_beginning_are_not_compared() -> None:
    batches = [[0, 1], [2]]
    plans = [None, planning.Plan(batches), planning.Plan(batches, 24), planning.Plan(batches, 25)]
    assert len({planning.described(8, batches, plan)["plan"] for plan in plans}) == 4
