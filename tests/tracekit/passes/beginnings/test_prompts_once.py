"""Captures in which samples of one prompt read it once: the same values, for fewer tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.forwards import QUIET
from tests.support.models import tiny, tiny_configurations
from tracekit.model.record import origin
from tracekit.passes import batching
from tracekit.passes.beginnings import planning, prompts_once
from tracekit.passes.generating import shared_prompts
from tracekit.passes.together import _asked
from tracekit.storage.provenance import read

MIXED = ("mixed", lambda block: block.output - block.output.roll(1, 1))
ASKED = ["Why is it that the sea is so very blue, and green at times?", "Who is it that asks?"]
SAID = ["It is not, at night.", "Me.", "There are more than three of those, and none is long."]
# rows of unequal length are one batch of a large budget
ONCE: dict[str, Any] = {"share_prompts": True, "token_budget": 1 << 16, **QUIET}


def sampled(model: Any) -> xr.Dataset:
    """Three responses to each of two prompts, of six lengths."""
    rows = [tk.Prompt(f"{n}#{k}", text=text) for n, text in enumerate(ASKED) for k in range(3)]
    responses = [text + more for more in ("", " And so on.") for text in SAID]
    return tk.encode(model, rows, responses=responses)


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return sampled(tiny_llama)


def requests(runs: xr.Dataset, width: int) -> dict[str, tk.Request]:
    axis = runs.token.values
    late = np.broadcast_to(np.stack([axis < 3, axis >= 3])[None], (6, 2, len(axis)))
    parts = xr.DataArray(
        late & (runs.token_id.values >= 0)[:, None] & (axis >= 0),
        {"prompt": runs.prompt.values, "stretch": [0, 1], "token": axis},
        ("prompt", "stretch", "token"),
    )
    values = np.random.default_rng(0).normal(size=(2, 2, width)).astype(np.float32)
    vectors = xr.DataArray(
        values, {"trait": ["t/a", "t/b"], "layer": [0, 2]}, ("trait", "layer", "dim")
    )
    return {
        "window": tk.Request(layers=[0, 2]),
        "added": tk.Request(layers=[1], site="heads"),
        "along": tk.Request(vectors=vectors, transfer=True),
        "likely": tk.Request(site="logprob", tokens=slice(0, None)),
        "parts": tk.Request(layers=[2], tokens=parts, reduce="mean"),
    }


def test_the_values_are_those_of_whole_rows(tiny_llama: Any, runs: xr.Dataset) -> None:
    asked = requests(runs, tiny_llama._module.config.hidden_size)
    once = tk.capture_many(tiny_llama, runs, asked, share_prompts=True, **QUIET)
    whole = tk.capture_many(tiny_llama, runs, asked, **QUIET)
    for name in asked:
        assert planning.shared(read(once[name])["batches"])
        xr.testing.assert_allclose(once[name], whole[name], atol=2e-5)
        # and not those of another sample of the prompt
        other = once[name].roll(prompt=1, roll_coords=False)
        assert float(abs(other - whole[name]).max()) > 1e-2


def beginning_apart(runs: xr.Dataset) -> xr.Dataset:
    """The same rows, those of the first prompt with another first token: nothing is common."""
    ids = runs.token_id.values.copy()
    first = np.array([name.startswith("0#") for name in runs.prompt.values.tolist()])
    ids[first, (ids[first] >= 0).argmax(1)] += 1
    return runs.assign(token_id=(runs.token_id.dims, ids))


def test_each_prompt_and_each_response_goes_through_once(
    tiny_llama: Any, runs: xr.Dataset, counted: list[int]
) -> None:
    assert prompts_once.may_share(tiny_llama)
    counted.clear()
    runs = beginning_apart(runs)
    tk.capture(tiny_llama, runs, [2], **ONCE)
    batch = batching.batch(tiny_llama, runs)
    real = batch.attention_mask.bool()
    before = (real & (torch.arange(real.shape[1]) < batch.starts[:, None] - 1)).sum(1)
    after = real.sum(1) - before
    assert len(set(before.tolist())) == 2
    assert counted == [2 * int(before.max()), 6 * int(after.max())]


def test_a_prompt_is_read_no_deeper_than_what_is_asked(tiny_llama: Any, runs: xr.Dataset) -> None:
    assert prompts_once.may_share(tiny_llama)
    reached: list[int] = []
    hook = tiny_llama._module.model.layers[1].register_forward_hook(lambda *a: reached.append(1))
    tk.capture(tiny_llama, runs, [0], **ONCE)
    hook.remove()
    assert not reached


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES])
def test_architectures(name: str, tiny_llama: Any) -> None:
    kind, settings = tiny.ARCHITECTURES[name]
    words = tiny_llama.tokenizer
    sizes = {**settings, "vocab_size": len(words), "pad_token_id": words.pad_token_id}
    model = tk.load(tiny.module(kind, sizes), tokenizer=words)
    runs = sampled(model)
    asked = {"window": tk.Request(), "likely": tk.Request(site="logprob", tokens=slice(0, None))}
    once = tk.capture_many(model, runs, asked, share_prompts=True, **QUIET)
    whole = tk.capture_many(model, runs, asked, **QUIET)
    # a window that is narrower than the prompt is kept by another kind of layer
    windowed = "sliding_window" in settings
    assert planning.shared(read(once["window"])["batches"]) is not windowed
    for found, expected in zip(once.values(), whole.values(), strict=True):
        xr.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_of_which_it_is_not_true_reads_each_row_whole(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tk.load(tiny_folder)
    runs = sampled(model)
    monkeypatch.setattr(prompts_once, "distinct", in_another_order)
    once = tk.capture(model, runs, [1], share_prompts=True, **QUIET)
    assert prompts_once.REFUSED in origin(model).proved
    assert not planning.shared(read(once)["batches"])
    xr.testing.assert_equal(once, tk.capture(model, runs, [1], **QUIET))


def in_another_order(batch: Any) -> tuple[list[int], list[int]]:
    """As `distinct`, with the prompts of the rows exchanged."""
    first, row_of = shared_prompts.distinct(batch)
    return first, [len(first) - 1 - n for n in row_of]


def test_edits_read_each_prompt_of_their_own(tiny_llama: Any, runs: xr.Dataset) -> None:
    size = tiny_llama._module.config.hidden_size
    steered = tk.steer(tiny_llama, torch.ones(size), layers=[1], coefficient=0.5)
    once = tk.capture(steered, runs, [2], share_prompts=True, **QUIET)
    xr.testing.assert_equal(once, tk.capture(steered, runs, [2], **QUIET))
    assert not planning.shared(read(once)["batches"])


def test_prompts_that_no_other_row_has_are_read_in_their_rows(
    tiny_llama: Any, runs: xr.Dataset, counted: list[int]
) -> None:
    assert prompts_once.may_share(tiny_llama)
    apart = beginning_apart(runs.isel(prompt=[0, 3]))
    counted.clear()
    once = tk.capture(tiny_llama, apart, [2], share_prompts=True, **QUIET)
    assert len(counted) == 1
    np.testing.assert_array_equal(once, tk.capture(tiny_llama, apart, [2], **QUIET))


def test_the_two_ways_are_not_compared_unless_it_is_said(tiny_llama: Any, runs: xr.Dataset) -> None:
    once = tk.capture(tiny_llama, runs, [2], share_prompts=True, **QUIET)
    whole = tk.capture(tiny_llama, runs, [2], **QUIET)
    with pytest.raises(tk.InputError, match="differ in batches"):
        tk.difference(once, whole)
    apart = tk.difference(once, whole, override=("batches",))
    assert float(abs(apart).max()) < 1e-4


def test_a_capture_goes_on_as_it_was_begun(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    options = {"token_budget": 200, "path": tmp_path, **QUIET}
    for begun in (False, True):
        options["path"] = tmp_path / str(begun)
        made = tk.capture(tiny_llama, runs, [2], share_prompts=begun, **options)
        files = sorted(options["path"].glob("0*.nc"))
        before = made.load()
        assert len(files) > 1
        files[0].unlink()
        again = tk.capture(tiny_llama, runs, [2], share_prompts=True, **options)
        assert planning.shared(read(again)["batches"]) is begun
        np.testing.assert_array_equal(again.sel(prompt=before.prompt), before)
    with pytest.raises(tk.InputError, match="other settings"):
        tk.capture(tiny_llama, runs, [2], **options)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tokens": "all"}, "residual is asked for from token -[0-9]+ on.*slice\\(-1, None\\)"),
        ({"tokens": slice(-2, None)}, "from token -2 on"),
        ({"site": "pattern", "layers": [0]}, "the site 'pattern', which may read whole rows"),
        ({"site": MIXED, "layers": [0]}, "the site '.*', which may read whole rows"),
        ({"site": "logprob", "tokens": "response"}, "logprob.*from token -1.*slice\\(0, None\\)"),
    ],
)
def test_tokens_before_the_response_are_refused(
    tiny_llama: Any, runs: xr.Dataset, asked: Any, words: str
) -> None:
    with pytest.raises(tk.InputError, match=f"(?s){words}"):
        tk.capture_many(tiny_llama, runs, {"a": tk.Request(**asked)}, share_prompts=True, **QUIET)


def lengths_of(runs: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    sizes = (runs.token_id.values >= 0).sum(1)
    before = runs.prompt_length.values - 1
    return before, sizes - before


def ragged(rng: np.random.Generator, model: Any, said: int, samples: int) -> xr.Dataset:
    """Prompts of many lengths, with samples of responses up to `said` characters."""
    rows, responses = [], []
    for n in range(int(rng.integers(2, 6))):
        text = "a" * int(rng.integers(4, 120))
        for k in range(samples):
            rows.append(tk.Prompt(f"{n}#{k}", text=text + str(n)))
            responses.append("b " * int(rng.integers(1, said)))
    return tk.encode(model, rows, responses=responses)


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_has_every_row_once_and_no_forward_over_the_budget(
    tiny_llama: Any, counted: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    runs = ragged(rng, tiny_llama, said=9 if seed % 2 else 60, samples=4)
    before, after = lengths_of(runs)
    budget = int(rng.integers(int((before + after).max()), 900))
    plan = planning.plan(runs, budget)
    assert prompts_once.may_share(tiny_llama)
    counted.clear()
    options = {"token_budget": budget, **QUIET}
    once = tk.capture(tiny_llama, runs, [2], share_prompts=True, **options)
    shared, forwards = sum(counted), len(counted)
    assert max(counted) <= budget
    assert planning.shared(read(once)["batches"]) == (plan is not None)
    if plan is not None:
        assert sorted(row for rows in plan.batches for row in rows) == list(
            range(runs.sizes["prompt"])
        )
        for rows in plan.batches:
            assert len(rows) * (before + after)[rows].max() <= 4 * budget
    counted.clear()
    whole = tk.capture(tiny_llama, runs, [2], **options)
    # it never computes more, and where it shares it saves an eighth
    assert shared <= (sum(counted) if plan is None else 7 / 8 * sum(counted))
    # nor does it cost more, where each forward costs a few tokens besides
    each = min(budget, sum(counted)) / 32
    assert shared + forwards * each <= sum(counted) + len(counted) * each
    xr.testing.assert_allclose(once, whole, atol=2e-5)


def test_a_prompt_longer_than_its_batch_is_shared(tiny_llama: Any, counted: list[int]) -> None:
    rows = [tk.Prompt(f"x#{k}", text="why " * 60) for k in range(6)]
    runs = tk.encode(tiny_llama, rows, responses=["so"] * 6)
    before, after = lengths_of(runs)
    assert prompts_once.may_share(tiny_llama)
    counted.clear()
    tk.capture(tiny_llama, runs, [2], share_prompts=True, token_budget=int(before[0]) + 9, **QUIET)
    assert sum(counted) < 6 * (before + after)[0] / 2


def test_cut_transcripts_are_read_whole(tiny_llama: Any, runs: xr.Dataset) -> None:
    cut = runs.sel(token=slice(-8, None))
    once = tk.capture(tiny_llama, cut, [2], share_prompts=True, **QUIET)
    xr.testing.assert_equal(once, tk.capture(tiny_llama, cut, [2], **QUIET))


def test_what_a_reduced_request_keeps_is_counted_by_the_shortest_row(tiny_llama: Any) -> None:
    """Of many short rows beside a long one, a batch keeps a value a row, and not one a width."""
    asked = [_asked(tiny_llama, "means", tk.Request(reduce="mean"))]
    layers, width = len(tiny_llama.layers), tiny_llama._module.config.hidden_size
    a_row = 4 * layers * width
    assert batching.kept_bytes(tiny_llama, asked, columns=400, shortest=10) == -(-a_row // 10)
    assert batching.kept_bytes(tiny_llama, asked, columns=400, shortest=1) == a_row


def test_a_window_over_columns_is_read_whole(tiny_llama: Any) -> None:
    words = tiny_llama.tokenizer
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    settings = tiny_configurations.settings("doge", len(words), ends)
    model = tk.load(
        tiny.module("doge", {**settings, "sliding_window": None, "keep_window_size": 20}),
        tokenizer=words,
    )
    assert not prompts_once.may_share(model)
