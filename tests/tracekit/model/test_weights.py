"""Fingerprints of weights: any changed bit shows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.model import weights


@pytest.mark.parametrize("size", [3, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_one_changed_bit_changes_the_fingerprint(size, dtype):
    values = (torch.arange(size) % 100).to(dtype)
    before = weights.fingerprint({"w": values})
    assert weights.fingerprint({"w": values.clone()}) == before
    changed = values.clone()
    changed.view(torch.uint8)[size // 2] ^= 1
    assert weights.fingerprint({"w": changed}) != before
    assert weights.fingerprint({"v": values}) != before


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**15 - 1), st.integers(0, 2**15 - 1))
def test_two_swapped_values_change_the_fingerprint(i, j):
    values = torch.arange(2**16, dtype=torch.float32)
    swapped = values.clone()
    swapped[[i, j]] = swapped[[j, i]]
    same = weights.fingerprint({"w": swapped}) == weights.fingerprint({"w": values})
    assert same == (i == j)
