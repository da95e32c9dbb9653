"""The twelve tasks with TransformerLens 4 (TransformerBridge), as its users would write them."""

# what a task is, `given.TASKS` says; a docstring would stand between the lines that are compared
# ruff: noqa: D103
from __future__ import annotations

from typing import Any

import torch

from experiments.benchmarks.tracing_tasks.given import (
    CAPITAL,
    CLEAN,
    CORRUPTED,
    DOSES,
    GIFT,
    LANDS,
    NAMES,
    PLACES,
    POEM,
    SCALES,
    SOUP,
    TALK,
    TOWER,
    TWICE,
)


def load(folder: str, adapter: str) -> Any:
    """A bridge over the transformers model, with the adapter attached and off."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    whole.load_adapter(adapter)
    whole.disable_adapters()
    whole.requires_grad_(True)  # load_adapter takes it away, and gradients begin at the weights
    words = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(folder, hf_model=whole, tokenizer=words)


def adapters_by_layer(model: Any, adapter: str) -> Any:
    sides, weights = [], model.original_model
    for switch in (weights.enable_adapters, weights.disable_adapters):
        switch()
        _, cache = model.run_with_cache(SOUP, prepend_bos=False)
        sides.append(torch.stack([cache["resid_post", layer][0] for layer in range(30)]))
    return ((sides[0] - sides[1]).norm(dim=-1) / sides[1].norm(dim=-1)).mean(1)


def patterns_and_units(model: Any, adapter: str) -> Any:
    _, cache = model.run_with_cache(TWICE, prepend_bos=False)
    words = model.to_str_tokens(TWICE, prepend_bos=False)
    return cache["pattern", 18][0], cache["post", 16][0], words


def lens_table(model: Any, adapter: str) -> Any:
    from transformer_lens.tools.analysis.logit_lens import logit_lens

    tokens = model.to_tokens(TOWER, prepend_bos=False)
    return logit_lens(model, tokens, targets=list(PLACES), return_type="log_probs").values[1:, 0]


def turns(model: Any, adapter: str) -> Any:
    _, raw = model.run_with_cache(TOWER, prepend_bos=False)
    chat = model.tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    # the bridge's tokenizer puts a BOS before it otherwise
    given = {"add_special_tokens": False, "return_offsets_mapping": True, "return_tensors": "pt"}
    coded = model.tokenizer(chat, **given)
    start = chat.rindex(TALK[-1]["content"])
    begins, ends = coded.offset_mapping[0].T
    second = (begins < start + len(TALK[-1]["content"])) & (ends > start)
    _, cache = model.run_with_cache(coded.input_ids)
    return raw["resid_post", 10][0], cache["resid_post", 10][0][second]


def top_token(model: Any, adapter: str, vector: Any) -> Any:
    _, cache = model.run_with_cache(POEM, prepend_bos=False)
    along = cache["resid_post", 15][0] @ vector
    at = int(along.argmax())
    return along, model.to_str_tokens(POEM, prepend_bos=False)[max(at - 3, 0) : at + 4]


def patching(model: Any, adapter: str) -> Any:
    from transformer_lens.patching import get_act_patch_resid_pre

    clean, corrupted = (model.to_tokens(text, prepend_bos=False) for text in (CLEAN, CORRUPTED))
    italy, france = (model.to_single_token(name) for name in LANDS)
    found = []
    for tokens, source in ((corrupted, clean), (clean, corrupted)):
        _, cache = model.run_with_cache(source)
        metric = lambda logits: logits[0, -1, italy] - logits[0, -1, france]
        found.append(get_act_patch_resid_pre(model, tokens, cache, metric))
    return found


def attribution(model: Any, adapter: str) -> Any:
    from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

    tokens, name = model.to_tokens(CAPITAL, prepend_bos=False), "blocks.10.hook_out"
    rome, paris = model.to_single_token(" Rome"), model.to_single_token(" Paris")
    metric = lambda logits: logits[0, -1, rome] - logits[0, -1, paris]
    both = cache_activation_and_gradient(model, tokens, metric, lambda hook: hook == name)
    return (both.activations[name] * both.gradients[name]).sum(-1)[0]


def dose_response(model: Any, adapter: str, vector: Any) -> Any:
    tokens = model.to_tokens(GIFT, prepend_bos=False)
    mary, john = (model.to_single_token(name) for name in NAMES)
    band = torch.nn.functional.normalize(torch.randn(4, len(vector)), dim=-1) * vector.norm()
    rows = torch.cat([dose * torch.stack([vector, *band]) for dose in DOSES])

    def add(residual: Any, hook: Any) -> Any:
        residual[:, -1] += rows
        return residual

    hooks = [("blocks.15.hook_resid_post", add)]
    logits = model.run_with_hooks(tokens.repeat(len(rows), 1), fwd_hooks=hooks)[:, -1]
    return logits[:, mary] - logits[:, john]


def head_ablation(model: Any, adapter: str) -> Any:
    tokens, found = model.to_tokens(GIFT, prepend_bos=False), []
    mary, john = (model.to_single_token(name) for name in NAMES)
    for head in range(9):

        def zero(z: Any, hook: Any, head: int = head) -> Any:
            z[:, :, head] = 0
            return z

        hooks = [("blocks.20.attn.hook_z", zero)]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1]
        found.append(logits[mary] - logits[john])
    return found


def conditional(model: Any, adapter: str, vector: Any, probe: Any) -> Any:
    state = {}

    def look(residual: Any, hook: Any) -> None:
        state["acts"] = residual[:, -1:] @ probe > 0

    def add(residual: Any, hook: Any) -> Any:
        residual[:, -1:] += 3.0 * state["acts"][..., None] * vector
        return residual

    tokens = model.to_tokens(TOWER, prepend_bos=False)
    hooks = [("blocks.10.hook_resid_post", look), ("blocks.15.hook_resid_post", add)]
    with model.hooks(fwd_hooks=hooks):
        return model.generate(tokens, max_new_tokens=8, do_sample=False, verbose=False)[0]


def strengths(model: Any, adapter: str) -> Any:
    weights, found = model.original_model, []
    weights.enable_adapters()
    dark, cheese = model.to_single_token(" dark"), model.to_single_token(" cheese")
    for scale in SCALES:
        for module in weights.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", scale)
        logits = model(SOUP, prepend_bos=False)[0, -1]
        found.append(logits[dark] - logits[cheese])
    weights.disable_adapters()
    return found


def divergence(model: Any, adapter: str) -> Any:
    weights = model.original_model
    weights.enable_adapters()
    on = model(SOUP, prepend_bos=False)[0].log_softmax(-1)
    weights.disable_adapters()
    off = model(SOUP, prepend_bos=False)[0].log_softmax(-1)
    return (on.exp() * (on - off)).sum(-1)
