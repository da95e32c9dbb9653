"""What made an array: fingerprints that any change shows in, and what must agree."""

import json

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage import identity, provenance


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


def test_a_missing_provenance_says_what_is_there():
    with pytest.raises(ValueError, match=r"carries no provenance \(attributes: \['units'\]\)"):
        provenance.read(xr.DataArray(np.zeros(2), attrs={"units": "nats"}))


def test_adding_a_token_changes_the_tokenizers_hash(words):
    import copy

    other = copy.deepcopy(words)
    assert identity.tokenizer_hash(other) == identity.tokenizer_hash(words)
    other.add_tokens(["zzzz"])
    assert identity.tokenizer_hash(other) != identity.tokenizer_hash(words)
