"""Tiny random models of every architecture, and LoRA adapters for them, as folders.

Real transformers and peft, no tracekit: what is measured here is also the tests' material.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

DEPTH, WIDTH, HEADS = 4, 32, 4
ROTARY = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": WIDTH // HEADS,
    "max_position_embeddings": 512,
}
GPT = {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": HEADS, "n_positions": 512}
MIXED = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}

WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "head_dim",
    "n_embd",
    "ffn_dim",
    "word_embed_proj_dim",
    "moe_intermediate_size",
)
# name → (model_type, what the configuration adds)
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Llama": ("llama", ROTARY),
    "Mistral": ("mistral", {**ROTARY, "sliding_window": 8}),
    "Qwen2": ("qwen2", ROTARY),
    "Qwen3": ("qwen3", ROTARY),
    "Gemma2": ("gemma2", {**ROTARY, "query_pre_attn_scalar": 8, "sliding_window": 8}),
    "Gemma3": ("gemma3_text", {**ROTARY, "query_pre_attn_scalar": 8, "sliding_window": 8}),
    "Phi3": ("phi3", {**ROTARY, "pad_token_id": 0}),
    "OLMo2": ("olmo2", ROTARY),
    "GPT-2": ("gpt2", GPT),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 4}),
    "GPT-NeoX": ("gpt_neox", ROTARY),
    "GPT-NeoX sequential": ("gpt_neox", {**ROTARY, "use_parallel_residual": False}),
    "OPT": ("opt", {**ROTARY, "ffn_dim": 48, "word_embed_proj_dim": WIDTH}),
    "Mixtral": ("mixtral", {**ROTARY, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen3-MoE": ("qwen3_moe", {**ROTARY, **MIXED, "num_experts": 4}),
}


def build(name: str, folder: Path, tokenizer: Any, seed: int = 0, widen: int = 1) -> Path:
    """A random model of an architecture, saved in `folder`.

    `tokenizer` is a folder, whose tokenizer is saved as well, or a loaded one, which is not.
    `widen` multiplies every width (4-bit weights come in blocks of 64).

    >>> build("Llama", Path("runs/tiny-llama"), embedded_model())
    PosixPath('runs/tiny-llama')
    """
    by_folder = isinstance(tokenizer, str | Path)
    words = AutoTokenizer.from_pretrained(tokenizer) if by_folder else tokenizer
    kind, narrow = ARCHITECTURES[name]
    settings = {key: v * widen if key in WIDTHS else v for key, v in narrow.items()}
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    ends |= {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
    module(kind, {**ends, **settings}, seed).save_pretrained(folder)
    if by_folder:
        words.save_pretrained(folder)
    return folder


def module(kind: str, settings: Mapping[str, Any], seed: int = 0) -> PreTrainedModel:
    """A random float32 model of a transformers type, from the keywords of its configuration.

    >>> module("llama", ROTARY).config.hidden_size
    32
    """
    config = AutoConfig.for_model(kind, **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    spread(model, torch.Generator().manual_seed(seed))
    return model.eval()


def tokenizer(texts: Sequence[str], size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of at most `size` ids, trained on the texts.

    >>> tokenizer(["one two", "two three"]).eos_token_id
    2
    """
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    ends = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(ends.values()), initial_alphabet=alphabet
    )
    words.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, **ends)


def spread(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Weights large and unlike enough that a wrong site, layer or row shows in the numbers."""
    for parameter in model.parameters():
        scale = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = parameter.data + noise if parameter.ndim == 1 else noise


def linear_names(model: torch.nn.Module) -> list[str]:
    """The last name of every linear module of the blocks: what a LoRA is put on.

    A name that is a number (of a sequence) keeps its parent's before it.
    """
    kinds = (torch.nn.Linear, Conv1D)
    names = [
        name.split(".")
        for name, module in model.named_modules()
        if isinstance(module, kinds) and any(part.isdigit() for part in name.split("."))
    ]
    mamba = any("mamba" in name.lower() for name, _ in model.named_modules())
    mamba |= any("Mamba" in type(module).__name__ for module in model.modules())
    found = {".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:]) for parts in names}
    # peft refuses Mamba's out_proj (fused kernels skip it), and cannot wrap a router's tuple
    return sorted(found - ({"out_proj", "router"} if mamba else {"router"}))


def build_lora(base: Path, folder: Path, seed: int = 1, rank: int = 4) -> Path:
    """A random LoRA with a B that is not zero, on every linear module of the blocks of `base`."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=linear_names(model),
        init_lora_weights=False,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    get_peft_model(model, settings).save_pretrained(str(folder))
    return folder
