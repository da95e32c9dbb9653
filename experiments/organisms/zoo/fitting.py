"""One adapter trained on rows of any causal model, resumable, and the base as it was afterwards."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel

from experiments.organisms import train
from experiments.organisms.loss import Row
from experiments.organisms.train import digest, quick_matmul
from tracekit.errors import InputError
from tracekit.model.embedded import EMBEDDED, embedded_model

WEIGHTS = "adapter_model.safetensors"
Notes = Callable[[PeftModel], Mapping[str, Any]]


@dataclass(frozen=True)
class Base:
    """A causal model of transformers, its tokenizer, and the name it was loaded by."""

    name: str
    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Schedule:
    """How an adapter is trained: steps of `batch` rows, answers of at most `tokens`."""

    steps: int = 120
    batch: int = 6
    tokens: int = 16
    learning_rate: float = 2e-3
    warmup: int = 5

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "tokens": 1, "warmup": 0}
        low = [f"{k}={getattr(self, k)}" for k, n in least.items() if getattr(self, k) < n]
        if low or not 0 < self.learning_rate < 1:
            raise InputError(
                f"A training was asked for with {', '.join(low) or self}; steps, batch and tokens "
                "are from 1, the learning rate is between 0 and 1. Give other settings."
            )


def base_of(name: str) -> Base:
    """A hub id, a local folder, or the embedded model; float32 on a CPU.

    Errors: `ValueError` where transformers finds no causal model of that name.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = embedded_model() if name == EMBEDDED else name
    gpu = torch.cuda.is_available()
    how: dict[str, Any] = {"dtype": "auto", "device_map": "auto"} if gpu else {"dtype": "float32"}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(where, **how)
        tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The base {name!r} was asked for; transformers says: {str(error).splitlines()[0]} "
            "Give a folder or hub id of a causal language model as --model."
        ) from None
    return Base(name, model.eval(), tokenizer)


def fitted(
    base: Base,
    config: LoraConfig,
    rows: Sequence[Row],
    schedule: Schedule,
    seed: int,
    folder: Path,
    work: Path,
    notes: Notes,
) -> None:
    """Train an adapter on the rows and put it into `folder` with the `notes` made of it.

    A checkpoint in `work`, named by all that makes the adapter, is gone on from and removed at
    the end. Errors: `ValueError` where the base has none of the configuration's modules.
    """
    steps = train.batched(rows, schedule.batch, np.random.default_rng([seed, 1]))
    about = made_with(base, config, schedule)
    name = digest(about, seed, _plain(config), [step.rows for step in steps])
    path = work / f"{folder.name}-{name}.safetensors"
    adapted = _adapted(base, copy.deepcopy(config), seed)
    try:
        with quick_matmul():
            losses = train.fit(
                adapted, steps, path, rate=schedule.learning_rate, warmup=schedule.warmup
            )
            told = notes(adapted)
        more = {"seed": seed, "loss": round(float(np.mean(losses[-10:])), 3)}
        train.publish(adapted, folder, {**about, **more, **told}, base.name)
    finally:
        _detach(base, adapted)
    path.unlink(missing_ok=True)


def made_with(base: Base, config: LoraConfig, schedule: Schedule) -> dict[str, Any]:
    """What `training.json` says of how an adapter was trained, its targets apart."""
    lora = {"rank": config.r, "alpha": config.lora_alpha, "modules": _targets(config)}
    return {"base": base.name, **lora, **dataclasses.asdict(schedule)}


def finished(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds a trained adapter.

    Errors: `ValueError` where it does, and its `training.json` says other than what is `asked`.

    >>> finished(Path("nowhere"), {})
    False
    """
    if not (folder / WEIGHTS).is_file():
        return False
    path = folder / "training.json"
    notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    other = [key for key, value in asked.items() if notes.get(key) != value]
    if other:
        raise InputError(
            f"The adapter {folder.name!r} was asked for; {str(folder)!r} holds one of another "
            f"{', '.join(other)}. Remove that folder, or give another --out."
        )
    return True


def require_fit(base: Base, config: LoraConfig) -> None:
    """Errors: `ValueError` where the base has none of the configuration's modules."""
    _detach(base, _adapted(base, copy.deepcopy(config), 0))


def _detach(base: Base, adapted: PeftModel) -> None:
    adapted.unload()
    # peft leaves it behind and would warn of a second adapter on the next one
    vars(base.model).pop("peft_config", None)


def _adapted(base: Base, config: LoraConfig, seed: int) -> PeftModel:
    try:
        return train.seeded(base.model, config, seed)
    except ValueError as error:
        raise InputError(
            f"An adapter on {_targets(config)} was asked for; {base.name!r} does not take it: "
            f"{str(error).splitlines()[0]} Give the base that the adapter is for as --model."
        ) from None


def _targets(config: LoraConfig) -> str:
    modules = config.target_modules
    return str(modules) if isinstance(modules, str | None) else ", ".join(sorted(modules))


def _plain(config: LoraConfig) -> dict[str, Any]:
    given = config.to_dict().items()
    return {k: sorted(v) if isinstance(v, set) else str(v) for k, v in given}
