"""What a model type needs beside what `tiny_configurations` makes of it, or why it is not built.

A string says why; `full` are keywords of the full configuration that is made small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
_ZAMBA = {"attention_hidden_size": 64, "attention_head_dim": 16}
_CODEBOOKS = "reads and writes several codebooks of audio a step: it generates no text."
_QSA = {
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_ASSISTANT = "drafts tokens from another model's hidden states: it has no forward of its own."
EXCEPTIONS: Mapping[str, str | Mapping[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1, 3]},
    "blt": "reads bytes through a patcher of its own, not a tokenizer's ids.",
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24},
    },
    "gemma3n": "needs the package timm for its vision tower; gemma3n_text is the same text model.",
    "gemma4_assistant": _ASSISTANT,
    "gemma4_unified_assistant": _ASSISTANT,
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    # beyond its window transformers' own generation differs with and without a cache
    "moshi": {"sliding_window": 512},
    "musicgen": _CODEBOOKS,
    "musicgen_melody": _CODEBOOKS,
    "qwen4_exp": {"text_config": _QSA},
    "qwen4_exp_text": _QSA,
    "reformer": {
        "axial_pos_embds_dim": [8, 24],
        "axial_pos_shape": [16, 32],
        "attn_layers": ["local", "lsh", "local", "lsh"],
    },
    "roc_bert": {"pronunciation_vocab_size": 400, "shape_vocab_size": 400},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": _ZAMBA,
    "zamba2": _ZAMBA,
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
