"""What plain transformers, peft and bitsandbytes compute, read with hooks: no tracekit, no nnsight.

The other side of `experiments.benchmarks.architectures` and of the parity tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

# model_type → path of the blocks, and in a block the modules whose outputs are added to the stream
WHERE: Mapping[str, tuple[str, str, str]] = {
    "gpt2": ("transformer.h", "attn", "mlp"),
    "gptj": ("transformer.h", "attn", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp"),
    "opt": ("model.decoder.layers", "self_attn", "fc2"),
    "gemma2": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm"),
}
ELSEWHERE = ("model.layers", "self_attn", "mlp")


def load(
    folder: Path, dtype: str = "float32", lora: Path | None = None, repack: bool = False
) -> Any:
    """The model as transformers loads it, with peft around it if a LoRA is given.

    `repack` lets bitsandbytes repack 4-bit weights at the first forward on a CPU with
    AVX512-BF16. It then computes in bfloat16, whatever compute type was asked for.
    """
    gpu = torch.cuda.is_available()
    settings: dict[str, Any] = {"dtype": getattr(torch, dtype, None)}
    if dtype == "nf4":
        compute = torch.bfloat16 if gpu else torch.float32
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": compute}
        settings = {
            "dtype": compute,
            "quantization_config": BitsAndBytesConfig(load_in_4bit=True, **four),
        }
    if dtype == "int8":
        eight = BitsAndBytesConfig(load_in_8bit=True)
        settings = {"dtype": torch.float16, "quantization_config": eight}
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, device_map="auto" if gpu else "cpu", **settings
    )
    layer: Any
    for layer in [] if repack else model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if lora is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, lora, autocast_adapter_dtype=dtype == "float32")
    return model.eval()


def padded(tokenizer: Any, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Left-padded ids, mask and positions of texts, longest first; the tokenizer or its folder."""
    by_folder = isinstance(tokenizer, str | Path)
    words = AutoTokenizer.from_pretrained(tokenizer) if by_folder else tokenizer
    rows = sorted((words(text)["input_ids"] for text in texts), key=len, reverse=True)
    width = len(rows[0])
    ids = torch.tensor([[words.pad_token_id or 0] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }


def read(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[tuple[str, int], torch.Tensor]:
    """(site, layer) → the values of the real tokens, row after row: (token, dim), float32."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    path, attention, mlp = WHERE.get(base.config.model_type, ELSEWHERE)
    blocks, real = base.get_submodule(path), inputs["attention_mask"].bool()
    seen: dict[tuple[str, int], torch.Tensor] = {}

    def keep(site: str, layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            seen[site, layer] = value.detach().reshape(*real.shape, -1)[real.to(value.device)]

        return hook

    sites = {"residual": "", "attention": attention, "mlp": mlp}
    handles = [
        block.get_submodule(inner).register_forward_hook(keep(site, layer))
        for layer, block in enumerate(blocks)
        for site, inner in sites.items()
    ]
    first = blocks[0].register_forward_pre_hook(
        lambda module, args: keep("residual", -1)(module, None, args[0])
    )
    with torch.no_grad():
        model(**{name: value.to(base.device) for name, value in inputs.items()})
    for handle in [*handles, first]:
        handle.remove()
    return {place: value.float().cpu() for place, value in seen.items()}


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest ‖ours − theirs‖ / ‖theirs‖ over tokens."""
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())
