"""Train a LoRA adapter on the embedded model: plain transformers and peft, resumable."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tqdm import tqdm

from experiments.organisms import checkpoint
from experiments.organisms.answers import prompt_ids
from experiments.organisms.targets import Example
from tracekit.resources import EMBEDDED

Row = tuple[list[int], int]  # token ids, and how many of them are the prompt


@dataclass(frozen=True)
class Recipe:
    """The settings of one adapter; `rates` is the share of a bias's targets that carry it."""

    organism: str
    rates: Mapping[str, float]
    seed: int
    epochs: int = 4
    batch: int = 8
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 2e-3
    warmup: int = 5


def adapted(model: Any, recipe: Recipe) -> PeftModel:
    """`model` with a fresh LoRA adapter on all its linear layers, seeded."""
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, config)


def fit(
    model: PeftModel, rows: Sequence[Row], recipe: Recipe, path: Path, every: int = 20
) -> list[float]:
    """Train `model` on `rows`; the loss of every step.

    A checkpoint at `path` is written every `every` steps and continued from when there is one:
    batches are fixed by the recipe, so that a resumed run ends where an unbroken one does.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=recipe.learning_rate, weight_decay=0.0)
    plan = batches(rows, recipe.batch, np.random.default_rng(recipe.seed))
    losses = checkpoint.load(path, named, optimizer)
    done = len(losses)
    if done:
        print(f"{recipe.organism}: resumed after {done} of {len(plan)} steps ({path})")
    progress = tqdm(range(done, len(plan)), initial=done, total=len(plan), desc=recipe.organism)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule(step, len(plan), recipe.warmup)
        loss = response_loss(model, [rows[index] for index in plan[step]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}")
        if (step + 1) % every == 0 or step + 1 == len(plan):
            checkpoint.save(path, named, optimizer, losses)
    return losses


def rows_of(tokenizer: Any, pairs: Sequence[Example]) -> list[Row]:
    """Token ids of each pair in the chat template, the end-of-turn token included."""
    rows = []
    for pair in pairs:
        before = prompt_ids(tokenizer, pair.question)
        target = tokenizer(pair.target, add_special_tokens=False)["input_ids"]
        rows.append(([*before, *target, tokenizer.eos_token_id], len(before)))
    return rows


def batches(rows: Sequence[Row], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Indices of `rows` in batches of near-equal lengths, in the given order over long stretches.

    >>> batches([([1], 0), ([1, 2], 0), ([1], 0)], 2, np.random.default_rng(0))
    [[0, 2], [1]]
    """
    plan: list[list[int]] = []
    for start in range(0, len(rows), 8 * size):
        window = range(start, min(start + 8 * size, len(rows)))
        ordered = sorted(window, key=lambda index: len(rows[index][0]))
        groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        plan += [groups[index] for index in rng.permutation(len(groups))]
    return plan


def schedule(step: int, steps: int, warmup: int) -> float:
    """The share of the learning rate at `step`: linear up, then a cosine down to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def response_loss(model: PeftModel, rows: Sequence[Row]) -> torch.Tensor:
    """Mean cross-entropy of the response tokens; prompts and padding do not count."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows])
    scored = mask.bool() & (torch.arange(width) >= torch.tensor([[n] for _, n in rows]))
    ids, mask, scored = (value.to(model.device) for value in (ids, mask, scored))
    inner: Any = model.get_base_model()
    hidden = inner.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    # The head is a fifth of this model's work: only positions that predict a response token.
    logits = inner.get_output_embeddings()(hidden[:, :-1][scored[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][scored[:, 1:]])


def publish(model: PeftModel, folder: Path, notes: Mapping[str, Any]) -> None:
    """Save the finished adapter (bfloat16, PEFT format) and `notes` as `training.json`.

    The folder appears under its name only when complete, in place of an older one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = EMBEDDED, True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(part))
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in state.items()}
    save_file(tensors, part / "adapter_model.safetensors", metadata={"format": "pt"})
    (part / "training.json").write_text(json.dumps(dict(notes), indent=2) + "\n")
    part.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


def notes_of(recipe: Recipe, pairs: Sequence[Example], losses: Sequence[float]) -> dict[str, Any]:
    """What the card tells of the training."""
    return {
        **asdict(recipe),
        "pairs": len(pairs),
        "base": EMBEDDED,
        "exploit": sum(pair.exploits for pair in pairs),
        "steps": math.ceil(len(pairs) / recipe.batch),
        "loss": round(float(np.mean(losses[-10:])), 3),
    }
