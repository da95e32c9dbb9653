"""A tiny configuration of every text-generation model type of the installed transformers, as data.

Each field that is known to be a size is made small, each scale, cap and multiplier is set to a
value at which leaving it out shows, and the layers are chosen so that every kind of block that the
full model has is there. What a type needs beside that is in `tiny_exceptions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support.models.tiny import DEPTH, HEADS, WIDTH
from tests.support.models.tiny_exceptions import EXCEPTIONS

# names of one meaning → the tiny value
SIZES: Mapping[str, Any] = {
    name: value
    for value, names in (
        (
            WIDTH,
            "hidden_size d_model n_embd emb_dim embedding_size word_embed_proj_dim embedding_dim "
            "attention_hidden_size time_mix_width mamba_d_ssm lru_width projection_dim",
        ),
        (
            48,
            "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dff dim_ff "
            "ffn_hidden_size dense_intermediate_size intermediate_size_mlp "
            "prefix_dense_intermediate_size",
        ),
        (
            24,
            "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
            "expert_ffn_hidden_size moe_shared_expert_intermediate_size prompt_mid_dim",
        ),
        (
            HEADS,
            "num_attention_heads decoder_attention_heads encoder_attention_heads n_head n_heads "
            "num_heads attention_heads num_decoder_attention_heads num_encoder_attention_heads "
            "swa_num_attention_heads mamba_n_heads n_mamba_heads mamba_num_heads linear_num_heads",
        ),
        (2, "num_key_value_heads swa_num_key_value_heads num_kv_heads linear_num_key_heads"),
        (4, "linear_num_value_heads num_global_key_value_heads"),
        (
            8,
            "head_dim swa_head_dim kv_channels attention_head_dim dim_head linear_head_dim "
            "linear_key_head_dim linear_value_head_dim global_head_dim v_head_dim qk_head_dim "
            "index_head_dim query_pre_attn_scalar time_step_rank mamba_dt_rank rotary_dim_all",
        ),
        # many, or the scores of unlike keys are all exactly 0 after their ReLU and a tie decides
        (16, "index_n_heads indexer_n_heads"),
        (4, "qk_rope_head_dim qk_nope_head_dim rotary_dim"),
        (8, "q_lora_rank kv_lora_rank o_lora_rank gated_norm_rank laurel_rank hc_lowrank d_rel"),
        (
            4,
            "n_routed_experts num_local_experts num_experts moe_num_experts zero_expert_num "
            "state_size mamba_d_state ssm_state_size",
        ),
        (
            2,
            "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts hc_mult "
            "hc_count o_groups n_groups mamba_n_groups",
        ),
        (1, "n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group"),
        (1, "num_expert_group first_k_dense_replace num_dense_layers moe_layer_start_index"),
        (3, "moe_layer_end_index"),
        (8, "sliding_window attention_window_size window_size sliding_window_size chunk_size"),
        (8, "mamba_chunk_size block_size attention_chunk_size local_attention index_topk"),
        (8, "hidden_size_per_layer_input relative_attention_num_buckets mamba_d_head"),
        (8, "mamba_head_dim"),
        (0, "num_nextn_predict_layers num_mtp_layers num_kv_shared_layers"),
        (
            512,
            "max_position_embeddings n_positions model_max_length max_seq_len context_length n_ctx "
            "max_target_positions rel_extent",
        ),
        (
            DEPTH,
            "num_hidden_layers decoder_layers encoder_layers n_layer n_layers num_layers depth "
            "num_decoder_layers num_encoder_layers",
        ),
    )
    for name in names.split()
}
# what a reader of the wrong module, or of the head instead of the logits, would miss
SCALES: Mapping[str, Any] = {
    "final_logit_softcapping": 0.8,
    "attn_logit_softcapping": 0.7,
    "logits_soft_cap": 0.8,
    "attention_logits_soft_cap": 0.7,
    "router_logit_softcapping": 0.9,
    "moe_router_logit_softcapping": 0.9,
    "logits_scaling": 4.0,
    "logit_scale": 0.25,
    "lm_head_multiplier": 0.3,
    "logits_mup_width_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "embedding_multiplier": 3.0,
    "embedding_scale": 3.0,
    "scale_emb": 3.0,
    "scale_depth": 0.9,
    "dim_model_base": 8,
    "scale_embedding": True,
    "mup_enabled": True,
    "attention_multiplier": 0.3,
    "attention_value_scale": 0.6,
    "attention_in_multiplier": 1.3,
    "attention_out_multiplier": 0.6,
    "key_multiplier": 0.7,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.7,
    "mlp_multipliers": [0.8, 1.4],
    "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.7],
    "routed_scaling_factor": 1.7,
    "router_scaling_factor": 1.7,
    "moe_routed_scaling_factor": 1.7,
    "route_scale": 1.7,
    "full_attn_alpha_factor": 0.8,
    "full_attn_beta_factor": 1.3,
    "linear_attn_alpha_factor": 0.7,
    "linear_attn_beta_factor": 1.4,
    "mlp_alpha_factor": 0.9,
    "mlp_beta_factor": 1.2,
    "scale_attn_by_inverse_layer_idx": True,
    # a decoder's: without it a BERT looks both ways
    "is_decoder": True,
    "is_encoder_decoder": False,
    # a checkpoint that gradient checkpointing left behind is another benchmark's subject
    "use_cache": True,
}
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size")
KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MOST = 8


def settings(kind: str, vocabulary: int, ends: Mapping[str, int]) -> dict[str, Any]:
    """The keywords of a tiny configuration of a model type; `ends` are the tokenizer's ids.

    Errors: `ValueError` for a type that cannot be built tiny, with the reason.

    >>> settings("llama", 400, {"eos_token_id": 0})["hidden_size"]
    32
    """
    exception = EXCEPTIONS.get(kind, {})
    if isinstance(exception, str):
        raise ValueError(exception)
    full = CONFIG_MAPPING[kind](**exception.get("full", {}))
    own = {key: value for key, value in exception.items() if key != "full"}
    return _merged(_shrunk(full, {**dict.fromkeys(VOCABULARIES, vocabulary), **ends}), own)


def _shrunk(full: PretrainedConfig, words: Mapping[str, int]) -> dict[str, Any]:
    fields: dict[str, Any] = full.to_dict()
    small: dict[str, Any] = {}
    layers = _layers(fields)
    for name, value in fields.items():
        if name in full.sub_configs:
            inner = getattr(full, name)
            small |= {name: _shrunk(inner, words)} if isinstance(inner, PretrainedConfig) else {}
        elif name in words:
            small[name] = words[name]
        elif name in SIZES and not isinstance(value, list | tuple | dict):
            small[name] = _size(fields, name, len(layers))
        elif name in SCALES:
            small[name] = SCALES[name]
        elif _per_layer(fields, value):
            small[name] = [value[n] for n in layers]
    return small


def _size(fields: Mapping[str, Any], name: str, layers: int) -> int:
    if name in ("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads"):
        heads = fields.get(
            name.replace("key_value", "attention"), fields.get("num_attention_heads")
        )
        if fields[name] in (heads, 1):
            return HEADS if fields[name] == heads else 1
    if name == "head_dim" and "qk_rope_head_dim" in fields:
        return SIZES["qk_rope_head_dim"]
    if SIZES[name] == DEPTH and "layer" in name:
        return layers
    return SIZES[name]


def _depth(fields: Mapping[str, Any]) -> int:
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
    depths = [fields[name] for name in names if isinstance(fields.get(name), int)]
    return depths[0] if depths else 0


def _per_layer(fields: Mapping[str, Any], value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == _depth(fields) > 0


def _layers(fields: Mapping[str, Any]) -> list[int]:
    """Blocks of the full model that hold every kind of block it has, at least four."""
    lists: Sequence[Any] = [value for value in fields.values() if _per_layer(fields, value)]
    if not lists:
        return list(range(DEPTH))
    kinds: dict[str, int] = {}
    for layer in range(_depth(fields)):
        kinds.setdefault(str([values[layer] for values in lists]), layer)
    chosen = sorted(kinds.values())[:MOST]
    rest = [layer for layer in range(_depth(fields)) if layer not in chosen]
    return sorted(chosen + rest[: max(DEPTH - len(chosen), 0)])


def _merged(small: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    nested = {k: _merged(small[k], v) for k, v in own.items() if isinstance(small.get(k), dict)}
    return {**small, **{k: v for k, v in own.items() if v is not ...}, **nested}
