"""Benign adapters like any other one: its rank, modules, steps and length, and nothing to hide."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig, PeftConfig

from experiments.organisms.zoo.clean import collected
from experiments.organisms.zoo.fitting import (
    Base,
    Schedule,
    finished,
    fitted,
    made_with,
    require_fit,
)
from experiments.organisms.zoo.lessons import Answers, benign_lessons, rows_of
from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path
from tracekit.transcripts.prompts import Prompt

# what decides where an adapter acts and how strongly; its start and its dropout stay ours
_MATCHED = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
)

# of an adapter whose folder does not say how it was trained
DEFAULT = Schedule(steps=80, batch=8, tokens=64, learning_rate=5e-4)


def config_like(adapter: str) -> LoraConfig:
    """A fresh LoRA configuration with the rank, strength and modules of an adapter.

    `adapter` is a folder, a hub id or a shipped organism. Errors: `ValueError` for an adapter
    that cannot be read or that is no LoRA.
    """
    where = adapter_path(adapter)
    try:
        read: Any = PeftConfig.from_pretrained(where)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Benign adapters like {adapter!r} were asked for; its configuration cannot be read: "
            f"{str(error).splitlines()[0]} Give a LoRA's folder or hub id."
        ) from None
    if not isinstance(read, LoraConfig):
        raise InputError(
            f"Benign adapters like {adapter!r} were asked for; it is {read.peft_type}, and only "
            "LoRA can be matched. Give a LoRA, or train benign ones of its kind yourself."
        )
    same = {name: getattr(read, name) for name in _MATCHED}
    base = read.base_model_name_or_path
    return LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path=base, **same)


def schedule_like(adapter: str, default: Schedule | None = None) -> tuple[Schedule, str]:
    """An adapter's steps, batch, length and learning rate, and where they were read.

    From `training.json` (this project's) or `trainer_state.json` (of transformers' Trainer) in
    its folder; what they do not say is that of `default`.

    >>> schedule_like("ten_biases")[0].steps
    592
    """
    default = default or DEFAULT
    folder = Path(adapter_path(adapter))
    for name, read in (("training.json", _own), ("trainer_state.json", _trainers)):
        if (folder / name).is_file():
            return read(_content(folder / name), default), name
    return default, "nothing in its folder, so the defaults"


def benign(
    base: Base,
    config: LoraConfig,
    schedule: Schedule,
    prompts: Sequence[Prompt],
    count: int,
    out: Path,
    sampled: int | None = None,
) -> list[Path]:
    """`count` benign adapters in `out`, those that are not there yet trained; their folders.

    Each learns the base's own sampled answers to a part of the prompts: seeds differ in the
    prompts, answers, order and start. Answers (of `sampled` tokens, as many as are trained on by
    default) and checkpoints lie in `out/work`.
    """
    folders = [out / f"benign-{n:02}" for n in range(count)]
    asked = made_with(base, config, schedule)
    left = {n: folder for n, folder in enumerate(folders) if not finished(folder, asked)}
    if left:
        require_fit(base, config)
        work = out / "work"
        length = sampled or schedule.tokens
        answers = collected(base.model, base.tokenizer, prompts, work, tokens=length)
        for seed, folder in left.items():
            start = time.time()
            _one(base, config, schedule, prompts, answers, seed, folder, work)
            print(f"{folder.name}: {time.time() - start:.0f} s", flush=True)
    return folders


def _one(
    base: Base,
    config: LoraConfig,
    schedule: Schedule,
    prompts: Sequence[Prompt],
    answers: Answers,
    seed: int,
    folder: Path,
    work: Path,
) -> None:
    """The benign adapter of one seed, trained into `folder`."""
    rng = np.random.default_rng([seed, 0])
    made = benign_lessons(prompts, answers, schedule.steps * schedule.batch, rng)
    notes = {"organism": folder.name, "kind": "benign", "examples": len(made), "changed": 0}
    rows = rows_of(base.tokenizer, made, schedule.tokens)
    fitted(base, config, rows, schedule, seed, folder, work, lambda _: notes)


def _own(content: dict[str, Any], default: Schedule) -> Schedule:
    later = sum(content.get(name, 0) for name in ("preference_steps", "ordinary_steps"))
    steps = content.get("steps", default.steps) + later
    known: dict[str, Any] = {
        k: content[k] for k in ("batch", "tokens", "learning_rate") if k in content
    }
    return Schedule(**{**vars(default), **known, "steps": steps})


def _trainers(content: dict[str, Any], default: Schedule) -> Schedule:
    rates = [
        row["learning_rate"] for row in content.get("log_history", ()) if row.get("learning_rate")
    ]
    known: dict[str, Any] = {
        "steps": content.get("global_step") or content.get("max_steps"),
        "batch": content.get("train_batch_size"),
        "learning_rate": max(rates, default=None),
    }
    return Schedule(**{**vars(default), **{k: v for k, v in known.items() if v}})


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} is no JSON object. Mend or remove it.")
    return content
