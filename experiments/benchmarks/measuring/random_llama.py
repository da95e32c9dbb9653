"""A random Llama of any size, made block by block in the precision it is held in, and a LoRA.

What would be 140 GB in 16 bits is never held in 16 bits anywhere: one block at a time is.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

PROJECTIONS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def configuration(layers: int, hidden: int, vocabulary: int) -> LlamaConfig:
    """Llama-3.3-70B's proportions: heads of 128, 8 key heads, an MLP 3.5 times as wide.

    >>> configuration(80, 8192, 128256).intermediate_size
    28672
    """
    heads = max(hidden // 128, 2)
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=min(8, heads),
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
    )


def build(config: LlamaConfig, dtype: str, seed: int = 0) -> LlamaForCausalLM:
    """The model on the GPU (the CPU without one), its blocks held as `dtype`.

    `dtype` is `nf4`, `bfloat16` or `float32`. Where blocks are in 4 bits, the rest has 16 (32 on
    a CPU, as `tracekit.load` holds it).

    >>> build(configuration(2, 256, 1000), "nf4").config.num_hidden_layers
    2
    """
    gpu = torch.cuda.is_available()
    small = dtype == "nf4"
    rest = (torch.bfloat16 if gpu else torch.float32) if small else getattr(torch, dtype)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(rest)
    try:
        with torch.device("cuda" if gpu else "cpu"):
            empty = copy.deepcopy(config)
            empty.num_hidden_layers = 0
            model = LlamaForCausalLM(empty).eval()
            for number in range(config.num_hidden_layers):
                block = LlamaDecoderLayer(model.config, number).eval()
                model.model.layers.append(_in_four_bits(block, rest) if small else block)
    finally:
        torch.set_default_dtype(before)
    model.config.num_hidden_layers = config.num_hidden_layers
    if small:
        # what peft and tracekit read of a model that transformers loaded in 4 bits
        model.config.quantization_config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=rest
        )
        model.is_loaded_in_4bit = True
    return model.requires_grad_(False)


def _in_four_bits(block: LlamaDecoderLayer, compute: torch.dtype) -> LlamaDecoderLayer:
    import bitsandbytes as bnb

    for part, names in PROJECTIONS.items():
        for name in names:
            held = getattr(getattr(block, part), name)
            settings: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": False}
            sizes = held.in_features, held.out_features
            with torch.device("meta"):
                made = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=compute, **settings)
            weight: Any = bnb.nn.Params4bit(held.weight.data, requires_grad=False, **settings)
            made.weight = weight.to(held.weight.device)  # quantises
            setattr(getattr(block, part), name, made)
    return block


def write_lora(config: LlamaConfig, rank: int, folder: Path, seed: int = 1) -> Path:
    """A random LoRA on all seven projections as a peft folder, in 16 bits; its B is not zero.

    >>> write_lora(configuration(2, 256, 1000), 4, Path("runs/lora")).name
    'lora'
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for part in PROJECTIONS.values() for name in part]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
    settings |= {"target_modules": names, "base_model_name_or_path": "random", "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    tensors = dict(_halves(config, rank, torch.Generator().manual_seed(seed)))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _halves(
    config: LlamaConfig, rank: int, generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    wide, narrow = config.hidden_size, config.intermediate_size
    keys = (config.num_key_value_heads or 0) * wide // config.num_attention_heads
    sizes = {"k_proj": (wide, keys), "v_proj": (wide, keys), "down_proj": (narrow, wide)}
    sizes |= {"gate_proj": (wide, narrow), "up_proj": (wide, narrow)}
    for number in range(config.num_hidden_layers):
        for part, names in PROJECTIONS.items():
            for name in names:
                inputs, outputs = sizes.get(name, (wide, wide))
                start = f"base_model.model.model.layers.{number}.{part}.{name}"
                for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                    drawn = torch.randn(shape, generator=generator) * shape[1] ** -0.5
                    yield f"{start}.lora_{half}.weight", drawn.to(torch.bfloat16)
