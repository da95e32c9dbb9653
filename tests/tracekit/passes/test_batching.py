"""Batches: every row once, under the budget, little padding; halved when the GPU is full."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from transformers import LlamaConfig

from tracekit.passes import batching

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, budget=st.integers(1, 5000))
def test_each_row_is_in_one_batch_and_batches_stay_under_the_budget(
    lengths: list[int], budget: int
) -> None:
    plan = batching.plan(lengths, budget)
    assert sorted(row for rows in plan for row in rows) == list(range(len(lengths)))
    for rows in plan:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def test_the_plan_is_deterministic_and_follows_the_lengths() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 100).tolist()
    assert batching.plan(lengths, 2048) == batching.plan(list(lengths), 2048)
    lengths[3] += 100
    assert batching.plan(lengths, 2048) != batching.plan([*lengths[:3], 20, *lengths[4:]], 2048)


@pytest.mark.parametrize("budget", [2048, 8192])
def test_ragged_responses_cost_less_than_a_twentieth_in_padding(budget: int) -> None:
    rng = np.random.default_rng(1)
    # as in the real set: most responses have all their 100 tokens, the rest are shorter
    responses = np.where(rng.random(500) < 0.75, 100, rng.integers(15, 100, 500))
    lengths = (rng.integers(38, 65, 500) + responses).tolist()
    assert batching.efficiency(lengths, batching.plan(lengths, budget)) >= 0.95
    unsorted = [list(range(n, min(n + 14, 500))) for n in range(0, 500, 14)]
    assert batching.efficiency(lengths, unsorted) < 0.95


def test_keys_and_values_of_a_batch_on_cpu_stay_under_their_bound(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_llama._module.config
    # float32 keys and values of every layer
    token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert batching.decoding_budget(tiny_llama) == 8192
    monkeypatch.setattr(batching, "DECODING_BYTES", 6000 * token)
    assert batching.decoding_budget(tiny_llama) == 6000
    monkeypatch.setattr(batching, "DECODING_BYTES", 10 * token)
    assert batching.decoding_budget(tiny_llama) == 4096


def test_decoding_takes_fewer_steps_at_the_price_of_padding() -> None:
    lengths = [60 + 40 * n // 128 for n in range(128)]
    reading, decoding = (
        batching.plan(lengths, 8192, alike=alike)
        for alike in (batching.ALIKE, batching.DECODING_ALIKE)
    )
    assert len(decoding) < len(reading)
    assert batching.efficiency(lengths, decoding) < batching.efficiency(lengths, reading)
    # a row of less than half the longest stays apart
    assert batching.plan([100] * 20 + [40], 8192, alike=0.5) == [list(range(20)), [20]]


def test_a_batch_that_does_not_fit_is_halved_and_keeps_its_order() -> None:
    tried: list[int] = []

    def compute(rows: list[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return [row * 10 for row in rows]

    found = list(batching.run([5, 3, 8, 1, 9], compute))
    assert [row for rows, _ in found for row in rows] == [5, 3, 8, 1, 9]
    assert [value for _, values in found for value in values] == [50, 30, 80, 10, 90]
    assert tried == [5, 3, 2, 1, 2]


def test_the_failed_tensors_are_let_go_before_the_retry() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def compute(rows: list[int]) -> int:
        gc.collect()
        assert not any(ref() is not None for ref in alive)
        big = torch.zeros(len(rows))
        alive.append(weakref.ref(big))
        if len(rows) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return len(rows)

    assert [value for _, value in batching.run([0, 1, 2, 3], compute)] == [1, 1, 1, 1]


def test_one_row_that_does_not_fit_says_so() -> None:
    def compute(rows: list[int]) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.")

    with pytest.raises(MemoryError, match=r"One row alone .*3 GiB.* fewer layers"):
        list(batching.run([4], compute))


def test_other_errors_are_not_taken_for_a_full_gpu() -> None:
    def compute(rows: list[int]) -> None:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        list(batching.run([1, 2], compute))


def test_the_default_budget_keeps_a_shard_small(tiny_llama: object) -> None:
    assert batching.default_budget(tiny_llama, 0) == batching.CPU_BUDGET
    wide = 21 * 8192 * 4
    assert batching.default_budget(tiny_llama, wide) * wide <= batching.SHARD_BYTES
    # beside a GPU, in 16 bits: seven rows of 200 tokens at the shape of 70B, not one
    beside = batching.budget_for(20e9, 8192, 28672, wide // 2, gpu=True)
    assert 7 * 200 <= beside <= batching.GPU_SHARD_BYTES // (wide // 2)


def test_budgets_read_any_kind_of_configuration() -> None:
    base = {"num_hidden_layers": 4, "hidden_size": 32}
    per_head = {**base, "num_attention_heads": 4}
    latent = {"kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
    expected = {
        "heads alone": (per_head, 2 * 4 * 4 * 8),
        "fewer keys": ({**per_head, "num_key_value_heads": 2, "head_dim": 16}, 2 * 4 * 2 * 16),
        "one a layer": ({**per_head, "num_key_value_heads": [1, 2, 3, None]}, 2 * 4 * 3 * 8),
        "none": ({**per_head, "head_dim": None, "num_key_value_heads": None}, 2 * 4 * 4 * 8),
        "a state": (base, 0),
        "latent": ({**per_head, **latent, "num_key_value_heads": 1}, 2 * 4 * 4 * 12),
    }
    for kind, (config, numbers) in expected.items():
        assert batching.cached_numbers(SimpleNamespace(**config)) == numbers, kind
    assert batching.most(SimpleNamespace(intermediate_size=[48, 64]), "intermediate_size") == 64


def test_budgets_read_a_configuration_that_differs_by_layer() -> None:
    config = LlamaConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, head_dim=8)
    even = batching.cached_numbers(config)
    config.per_layer_config = {1: {"head_dim": 16}}
    assert batching.cached_numbers(config) == 2 * even
