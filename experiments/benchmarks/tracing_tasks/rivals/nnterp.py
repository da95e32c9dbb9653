"""The twelve tasks with nnterp 1.3 (StandardizedTransformer), as its users would write them."""

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
    """The transformers model under nnterp's names, with the adapter attached and off."""
    from nnterp import StandardizedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    whole.load_adapter(adapter)
    whole.disable_adapters()
    words = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return StandardizedTransformer(
        whole, tokenizer=words, enable_attention_probs=True, check_attn_probs_with_trace=False
    )


def ids(model: Any, words: Any) -> Any:
    """The one token of each word: nnterp has no word for it, and every task needs it."""
    return [model.tokenizer.encode(word, add_special_tokens=False)[0] for word in words]


def adapters_by_layer(model: Any, adapter: str) -> Any:
    sides = []
    for switch in (model._model.enable_adapters, model._model.disable_adapters):
        switch()
        with model.trace(SOUP):
            side = torch.stack([model.layers_output[layer][0] for layer in range(30)]).save()  # type: ignore[attr-defined]
        sides.append(side)
    return ((sides[0] - sides[1]).norm(dim=-1) / sides[1].norm(dim=-1)).mean(1)


def patterns_and_units(model: Any, adapter: str) -> Any:
    with model.trace(TWICE):
        units = model.mlps[16].down_proj.input[0].save()
        pattern = model.attention_probabilities[18][0].save()
    words = model.tokenizer.tokenize(TWICE)
    return pattern, units, words


def lens_table(model: Any, adapter: str) -> Any:
    from nnterp.interventions import logit_lens

    return logit_lens(model, TOWER)[0][:, ids(model, PLACES)].log()


def turns(model: Any, adapter: str) -> Any:
    chat = model.tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    coded = model.tokenizer(chat, return_offsets_mapping=True, return_tensors="pt")
    start = chat.rindex(TALK[-1]["content"])
    begins, ends = coded.offset_mapping[0].T
    second = (begins < start + len(TALK[-1]["content"])) & (ends > start)
    with model.trace(TOWER):
        raw = model.layers_output[10][0].save()
    with model.trace(chat):
        turn = model.layers_output[10][0][second].save()
    return raw, turn


def top_token(model: Any, adapter: str, vector: Any) -> Any:
    with model.trace(POEM):
        along = (model.layers_output[15][0] @ vector).save()
    at = int(along.argmax())
    return along, model.tokenizer.tokenize(POEM)[max(at - 3, 0) : at + 4]


def patching(model: Any, adapter: str) -> Any:
    italy, france = ids(model, LANDS)
    tables = []
    for text, source in ((CORRUPTED, CLEAN), (CLEAN, CORRUPTED)):
        with model.trace(source):
            stored = torch.stack([model.layers_output[layer][0] for layer in range(30)]).save()  # type: ignore[attr-defined]
        table = torch.zeros(stored.shape[:2])
        for layer in range(30):
            for token in range(stored.shape[1]):
                with model.trace(text):
                    model.layers_output[layer][:, token] = stored[layer, token]
                    logits = model.logits[0, -1].save()
                table[layer, token] = logits[italy] - logits[france]
        tables.append(table)
    return tables


def attribution(model: Any, adapter: str) -> Any:
    rome, paris = ids(model, (" Rome", " Paris"))
    with model.trace(CAPITAL):
        residual = model.layers_output[10]
        residual.requires_grad_(True)
        logits = model.logits[0, -1]
        with (logits[rome] - logits[paris]).backward():
            slope = residual.grad
            found = (residual * slope).sum(-1)[0].detach().save()
    return found


def dose_response(model: Any, adapter: str, vector: Any) -> Any:
    mary, john = ids(model, NAMES)
    band = torch.nn.functional.normalize(torch.randn(4, len(vector)), dim=-1) * vector.norm()
    rows = torch.cat([dose * torch.stack([vector, *band]) for dose in DOSES])
    with model.trace([GIFT] * len(rows)):
        model.steer(15, rows, token_positions=-1)
        logits = model.logits[:, -1].save()
    return logits[:, mary] - logits[:, john]


def head_ablation(model: Any, adapter: str) -> Any:
    mary, john = ids(model, NAMES)
    found = []
    for head in range(9):
        with model.trace(GIFT):
            model.attentions[20].o_proj.input[:, :, 64 * head : 64 * (head + 1)] = 0
            logits = model.logits[0, -1].save()
        found.append(logits[mary] - logits[john])
    return found


def conditional(model: Any, adapter: str, vector: Any, probe: Any) -> Any:
    with model.generate(TOWER, max_new_tokens=8, do_sample=False) as tracer:
        for _ in tracer.iter[:8]:
            acts = model.layers_output[10][:, -1:] @ probe > 0
            model.layers_output[15][:, -1:] += 3.0 * acts[..., None] * vector
        said = tracer.result.save()
    return said[0]


def strengths(model: Any, adapter: str) -> Any:
    (dark, cheese), found = ids(model, (" dark", " cheese")), []
    model._model.enable_adapters()
    for scale in SCALES:
        for module in model._model.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", scale)
        with model.trace(SOUP):
            logits = model.logits[0, -1].save()
        found.append(logits[dark] - logits[cheese])
    model._model.disable_adapters()
    return found


def divergence(model: Any, adapter: str) -> Any:
    sides = []
    for switch in (model._model.enable_adapters, model._model.disable_adapters):
        switch()
        with model.trace(SOUP):
            side = model.logits[0].log_softmax(-1).save()
        sides.append(side)
    return (sides[0].exp() * (sides[0] - sides[1])).sum(-1)
