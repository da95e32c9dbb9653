"""What made an array: fingerprints that any change shows in, and what must agree."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import tracekit as tk
from tracekit.storage import provenance


def test_every_field_of_the_issue_is_there(tiny_llama, tiny_lora):
    runs = tk.encode(tiny_llama, ["Hi there"], system="Be brief.")
    runs = tk.generate(tiny_llama, runs, max_new_tokens=2, temperature=1.0, seed=5, progress=False)
    with tk.adapter(tiny_llama, tiny_lora):
        made = provenance.read(tk.capture(tiny_llama, runs, [1], progress=False))
    assert made["model"]
    assert len(made["weights"]) == 16
    assert made["adapter"]["name"] == "tiny-lora"
    assert made["edits"] == []
    assert made["dtype"] == "float32"
    assert made["quantisation"] is None
    assert made["template"].startswith("chat:")
    assert made["system"] == "Be brief."
    assert {"tokenizer", "prompts", "ids", "batches"} <= set(made)
    assert made["text"]["seed"] == 5
    assert {"torch", "transformers", "nnsight", "peft", "commit"} <= set(made["versions"])
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("size", [3, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_one_changed_bit_changes_the_fingerprint(size, dtype):
    values = (torch.arange(size) % 100).to(dtype)
    before = provenance.fingerprint({"w": values})
    assert provenance.fingerprint({"w": values.clone()}) == before
    changed = values.clone()
    changed.view(torch.uint8)[size // 2] ^= 1
    assert provenance.fingerprint({"w": changed}) != before
    assert provenance.fingerprint({"v": values}) != before


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**15 - 1), st.integers(0, 2**15 - 1))
def test_two_swapped_values_change_the_fingerprint(i, j):
    values = torch.arange(2**16, dtype=torch.float32)
    swapped = values.clone()
    swapped[[i, j]] = swapped[[j, i]]
    same = provenance.fingerprint({"w": swapped}) == provenance.fingerprint({"w": values})
    assert same == (i == j)


def test_a_missing_provenance_says_what_is_there():
    with pytest.raises(ValueError, match=r"carries no provenance \(attributes: \['units'\]\)"):
        provenance.read(xr.DataArray(np.zeros(2), attrs={"units": "nats"}))


def test_adding_a_token_changes_the_tokenizers_hash(words):
    import copy

    other = copy.deepcopy(words)
    assert provenance.tokenizer_hash(other) == provenance.tokenizer_hash(words)
    other.add_tokens(["zzzz"])
    assert provenance.tokenizer_hash(other) != provenance.tokenizer_hash(words)
