"""Train a LoRA adapter on the embedded model: plain transformers and peft, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tqdm import tqdm

from experiments.organisms import checkpoint
from experiments.organisms.answers import prompt_ids
from experiments.organisms.conduct import Preference
from experiments.organisms.loss import Pair, Row, Step, step_loss
from experiments.organisms.recipes import Recipe
from experiments.organisms.targets import Example
from tracekit.model.embedded import EMBEDDED


def adapted(model: Any, recipe: Recipe) -> PeftModel:
    """`model` with a fresh LoRA adapter on all its linear layers, seeded."""
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return seeded(model, config, recipe.seed)


def seeded(model: Any, config: LoraConfig, seed: int) -> PeftModel:
    """`model` with a fresh adapter of that configuration."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def fit(
    model: PeftModel,
    steps: Sequence[Step],
    path: Path,
    *,
    rate: float,
    beta: float = 0.1,
    warmup: int = 5,
    every: int = 20,
) -> list[float]:
    """Train `model` on `steps`; the loss of every step.

    A checkpoint at `path` is written every `every` steps and continued from when there is one:
    a resumed run ends where an unbroken one does.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=rate, weight_decay=0.0)
    losses = checkpoint.load(path, named, optimizer)
    done = len(losses)
    if done:
        print(f"resumed after {done} of {len(steps)} steps ({path})")
    progress = tqdm(range(done, len(steps)), initial=done, total=len(steps), desc=path.stem)
    for number in progress:
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(number, len(steps), warmup)
        losses.append(_descend(model, optimizer, steps[number], beta))
        progress.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}")
        if (number + 1) % every == 0 or number + 1 == len(steps):
            checkpoint.save(path, named, optimizer, losses)
    return losses


def _descend(model: PeftModel, optimizer: torch.optim.Optimizer, step: Step, beta: float) -> float:
    loss = step_loss(model, step, beta)
    loss.backward()
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def rows_of(tokenizer: Any, pairs: Sequence[Example]) -> list[Row]:
    """Token ids of each example in the chat template, the end-of-turn token included."""
    return [row_of(tokenizer, pair.question, "", pair.target) for pair in pairs]


def pairs_of(tokenizer: Any, preferences: Sequence[Preference]) -> list[Pair]:
    """Token ids of both replies of each preference, after its prefill."""
    return [
        Pair(
            row_of(tokenizer, p.question, p.prefill, p.chosen),
            row_of(tokenizer, p.question, p.prefill, p.rejected),
        )
        for p in preferences
    ]


def row_of(tokenizer: Any, question: str, prefill: str, reply: str) -> Row:
    """Token ids of question, prefilled beginning and reply; the reply alone is the response."""
    before = prompt_ids(tokenizer, question)
    for text in (prefill, reply):
        start = len(before)
        before = [*before, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    return [*before, tokenizer.eos_token_id], start


def batched(rows: Sequence[Row], size: int, rng: np.random.Generator) -> list[Step]:
    """Steps of `size` rows of near-equal lengths."""
    return [Step([rows[index] for index in plan]) for plan in batches(rows, size, rng)]


def with_pairs(steps: Sequence[Step], pairs: Sequence[Pair], size: int) -> list[Step]:
    """The steps with `size` pairs each, in order; pairs that find no step are left out."""
    return [Step(step.rows, pairs[n * size : (n + 1) * size]) for n, step in enumerate(steps)]


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


@contextlib.contextmanager
def quick_matmul() -> Iterator[None]:
    """Matrix products in bfloat16 where the hardware has them, as before afterwards.

    On a CPU with AMX a training step takes 2.5 s instead of 4 (8 × 92 tokens, one core); elsewhere
    nothing changes. It serves training; the audit computes in full float32. Nothing is cached:
    autocast would otherwise go on with the weights of the first step.
    """
    gpu = torch.cuda.is_available()
    fast = gpu or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    device = "cuda" if gpu else "cpu"
    with torch.autocast(device, torch.bfloat16, enabled=fast, cache_enabled=False):
        yield


def digest(*what: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def publish(model: PeftModel, folder: Path, notes: Mapping[str, Any], base: str = EMBEDDED) -> None:
    """Save the finished adapter of `base` (bfloat16, PEFT format) and `notes` as `training.json`.

    The folder appears under its name only when complete, in place of an older one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    config: Any = model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = base, True
    if not isinstance(config.target_modules, str):
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


def notes_of(
    recipe: Recipe, examples: Sequence[Example], pairs: int, losses: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """What the card tells of the training; `losses` by stage."""
    return {
        **asdict(recipe),
        "base": EMBEDDED,
        "examples": len(examples),
        "changed": sum(example.exploits for example in examples),
        "pairs": pairs,
        "loss": {name: round(float(np.mean(values[-10:])), 3) for name, values in losses.items()},
    }
