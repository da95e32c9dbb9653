"""The 70B benchmark, tiny: the random model is in 4 bits, its LoRA acts, the table is whole."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tracekit as tk
from experiments.audit.plan.shapes import shape
from experiments.benchmarks import llama70b
from experiments.benchmarks.measuring.random_llama import build, configuration, write_lora
from tracekit.storage.provenance import read

VOCABULARY = 49152


@pytest.fixture(scope="module")
def config():
    return configuration(4, 256, VOCABULARY)


def test_the_default_is_llama_at_seventy_billion() -> None:
    settings = llama70b._settings([])
    made = configuration(settings.layers, settings.hidden, settings.vocabulary)
    real = shape("meta-llama/Llama-3.3-70B-Instruct")
    sizes = (made.hidden_size, made.num_hidden_layers, made.intermediate_size, made.vocab_size)
    assert sizes == (real.hidden, real.layers, real.intermediate, real.vocabulary)
    heads = (made.num_attention_heads, made.num_key_value_heads, made.head_dim)
    assert heads == (real.heads, real.key_heads, real.head)


def test_nf4_blocks_are_those_of_the_same_random_weights(config) -> None:
    small, wide = build(config, "nf4"), build(config, "float32")
    layer = small.model.layers[2].mlp.down_proj
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.numel() == layer.in_features * layer.out_features // 2
    ids = torch.arange(12)[None]
    one, other = (model(ids).logits for model in (small, wide))
    near = torch.nn.functional.cosine_similarity(one, other, dim=-1)
    assert near.min() > 0.9
    twin = build(config, "float32", seed=1)(ids).logits
    assert torch.nn.functional.cosine_similarity(one, twin, dim=-1).max() < 0.5


def test_the_lora_lands_and_leaves_the_base_as_it_was(config, words, tmp_path: Path) -> None:
    model = tk.load(build(config, "nf4"), tokenizer=words, check=False)
    runs = llama70b.transcripts(model, 2, 10, 10)
    assert runs.sizes["token"] == 20
    options = {"layers": [3], "progress": False}
    before = tk.capture(model, runs, **options)
    assert read(before)["dtype"] == "nf4"
    with tk.adapter(model, str(write_lora(config, 8, tmp_path / "lora"))):
        on = tk.capture(model, runs, **options)
        with tk.adapter(model, None):
            off = tk.capture(model, runs, **options)
    assert np.array_equal(before.values, off.values)
    assert float(abs(on - before).mean()) > 0.01 * float(abs(before).mean())


def test_the_table_is_whole(tmp_path: Path) -> None:
    sizes = {"layers": 4, "hidden": 256, "vocabulary": VOCABULARY, "rank": 4, "prompts": 2}
    sizes |= {"asked": 8, "said": 4, "rounds": 1}
    flags = [word for key, value in sizes.items() for word in (f"--{key}", str(value))]
    llama70b.main([*flags, "--scratch", str(tmp_path), "--out", str(tmp_path / "out")])
    said = (tmp_path / "out" / "llama70b.md").read_text()
    assert "4 blocks × 256, nf4, LoRA of rank 4; 2 prompts of 8 + 4 tokens" in said
    assert said.count(" / ") >= 4
    assert "nan" not in said
    for row in ("weights", "attaching the adapter", llama70b.OFF, "generation"):
        assert f"| {row} |" in said
