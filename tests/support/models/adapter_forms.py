"""Adapters of every form, made with plain peft, and what plain peft computes with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.support.oracles import reference

RIGHT, REFUSED = "right", "refused"
# field → (its values, what is to come of each); a field of LoraConfig that is not here fails
FORMS: Mapping[str, list[tuple[Any, str]]] = {
    "r": [(1, RIGHT), (12, RIGHT)],
    "target_modules": [
        ("all-linear", RIGHT),
        (r".*\.[02]\.self_attn\.v_proj", RIGHT),
        (["embed_tokens", "q_proj"], RIGHT),
        (["lm_head"], RIGHT),
    ],
    "exclude_modules": [(["model.layers.0.self_attn.q_proj"], RIGHT)],
    "lora_alpha": [(1, RIGHT), (32, RIGHT)],
    "lora_dropout": [(0.5, RIGHT)],
    "fan_in_fan_out": [(True, RIGHT)],
    "bias": [("all", REFUSED), ("lora_only", REFUSED), ("none", RIGHT)],
    "use_rslora": [(True, RIGHT)],
    "modules_to_save": [(["lm_head"], RIGHT), (["embed_tokens", "norm"], RIGHT)],
    "init_lora_weights": [
        (True, RIGHT),
        (False, RIGHT),
        ("gaussian", RIGHT),
        ("orthogonal", RIGHT),
        ("eva", RIGHT),
        ("pissa", REFUSED),
        ("pissa_niter_4", REFUSED),
        ("olora", REFUSED),
        ("mica", REFUSED),
        ("loftq", REFUSED),
        ("corda", REFUSED),
        ("lora_ga", REFUSED),
    ],
    "layers_to_transform": [([1, 3], RIGHT)],
    "layers_pattern": [("layers", RIGHT)],
    "rank_pattern": [({"q_proj": 2}, RIGHT)],
    "alpha_pattern": [({"q_proj": 3}, RIGHT)],
    "trainable_token_indices": [([5, 42, 79], RIGHT), ({"embed_tokens": [5, 79]}, RIGHT)],
    "use_dora": [(True, RIGHT)],
    "lora_bias": [(True, RIGHT)],
    "target_parameters": [(["up_proj.weight"], RIGHT)],
    "ensure_weight_tying": [(True, RIGHT)],
    "alora_invocation_tokens": [([5, 42], REFUSED)],
    "layer_replication": [([[0, 3], [1, 4]], REFUSED)],
    "use_bdlora": [({"target_modules_bd_a": ["q_proj", "down_proj"], "nblocks": 2}, RIGHT)],
    "kasa_config": [({}, REFUSED)],
    "velora_config": [({}, RIGHT)],
    "monteclora_config": [({}, RIGHT)],
    "qalora_group_size": [(8, RIGHT)],
}
# given with another field above, or for training alone, or only read by other libraries
BESIDE = {
    "task_type": "names a wrapper",
    "peft_type": "LORA throughout",
    "auto_mapping": "names a wrapper",
    "peft_version": "a record",
    "base_model_name_or_path": "a test of its own",
    "revision": "of the base",
    "inference_mode": "written by peft",
    "megatron_config": "needs Megatron",
    "megatron_core": "needs Megatron",
    "loftq_config": "with init_lora_weights",
    "eva_config": "with init_lora_weights",
    "corda_config": "with init_lora_weights",
    "lora_ga_config": "with init_lora_weights",
    "use_qalora": "needs a GPTQ base",
    "arrow_config": "needs other adapters",
    "runtime_config": "not saved",
}
NEEDS: Mapping[str, dict[str, Any]] = {
    "layers_pattern": {"layers_to_transform": [0]},
    "target_parameters": {"target_modules": []},
    "ensure_weight_tying": {"modules_to_save": ["embed_tokens"]},
}


def settings(field: str, value: Any) -> dict[str, Any]:
    """A LoraConfig's arguments with that field."""
    made = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    return {**made, "task_type": "CAUSAL_LM", **NEEDS.get(field, {}), field: _nested(field, value)}


def _nested(field: str, value: Any) -> Any:
    import peft.tuners.lora.config as forms

    kinds = {"use_bdlora": "BdLoraConfig", "kasa_config": "KasaConfig"}
    kinds |= {"velora_config": "VeloraConfig", "monteclora_config": "MontecloraConfig"}
    return getattr(forms, kinds[field])(**value) if field in kinds else value


def save(base: Path, folder: Path, field: str, value: Any) -> None:
    """That adapter for `base`, none of its values at their start, as a folder."""
    arguments = settings(field, value)
    written = arguments.get("init_lora_weights", True)
    # what needs data or a long computation to begin with is written into the configuration only
    if written in ("eva", "corda", "lora_ga", "loftq"):
        arguments["init_lora_weights"] = True
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(reference.load(base), LoraConfig(**arguments))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            trained = parameter.requires_grad or ("bias" in name and "bias" in arguments)
            if trained and "magnitude" not in name:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    if arguments.get("init_lora_weights", True) != written:
        model.peft_config["default"].init_lora_weights = written
    model.save_pretrained(str(folder), save_embedding_layers=False)


def logits(base: Path, folder: Path | None, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Plain peft's: of the real tokens, row after row."""
    model = reference.load(base)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()]
