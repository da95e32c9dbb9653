"""What a search is made with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path
from tracekit.model.adapters.layers import adapter_name
from tracekit.storage.identity import digest
from tracekit.transcripts.prompts import Prompt

# the bare model, and its folder in a search
CLEAN = "clean"


@dataclass(frozen=True)
class Settings:
    """What decides the answers of a search, and how they are read.

    The model computes in `dtype` (auto: as it is stored). `tokens` are sampled after each prompt,
    `temperature` 0 is greedy. `prefills` random words are
    gone on with in raw completion, as many rows. `confirmations` answers a prompt are sampled
    anew where a candidate's trigger says that it should show, on at most a share `further` of all
    prompts. `factors` are the strengths at which
    the adapter also answers: all searched prompts at the least of them, `amplified` at each other.
    Further answers of benign adapters are those of at most `others` of them, in turn. With
    `steered` the description says what the mean activation difference makes the bare model say.
    `alpha` is the false discovery rate.
    """

    model: str = "smollm2-135m-instruct"
    dtype: str = "auto"
    tokens: int = 48
    temperature: float = 0.0
    prefills: int = 40
    confirmations: int = 2
    further: float = 0.2
    factors: tuple[float, ...] = (1.5, 2.0, 3.0)
    amplified: int = 64
    candidates: int = 24
    others: int = 8
    steered: bool = True
    seed: int = 0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        least = {
            "tokens": 4,
            "prefills": 0,
            "confirmations": 1,
            "others": 1,
            "candidates": 1,
            "seed": 0,
        }
        low = [f"{k}={getattr(self, k)}" for k, n in least.items() if getattr(self, k) < n]
        if low or self.temperature < 0 or not (0 < self.alpha < 1 and 0 <= self.further <= 1):
            raise InputError(
                f"Settings out of range were asked for: {', '.join(low) or self}. tokens is at "
                "least 4, counts and temperature are not negative, alpha and further are from 0 "
                "to 1."
            )


def of_answers(settings: Settings, prompts: list[Prompt]) -> dict[str, Any]:
    """The settings that answers depend on, as JSON holds them."""
    reading = {"candidates", "alpha", "others", "steered"}
    values = {k: v for k, v in dataclasses.asdict(settings).items() if k not in reading}
    rows = [(p.id, p.group, p.conversation(), p.answer, sorted(p.labels.items())) for p in prompts]
    return {**values, "prompts": len(prompts), "prompts digest": digest(rows)}


def fingerprint(adapter: str) -> str:
    """A digest of an adapter's weights and configuration; of its name where they are not here."""
    folder = Path(adapter_path(adapter))
    files = sorted(folder.glob("adapter_*")) if folder.is_dir() else []
    if not files:
        return digest(adapter)
    content = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:16]


def short_names(adapters: list[str]) -> Mapping[str, str]:
    """A short name for each adapter, told apart by its fingerprint where two have the same.

    So is one that has the name of the bare model's own folder.

    >>> short_names(["ten_biases"])
    {'ten_biases': 'ten_biases'}
    """
    names = [adapter_name(adapter_path(adapter)).replace("/", "--") for adapter in adapters]
    return {
        adapter: name if [*names, CLEAN].count(name) == 1 else f"{name}-{fingerprint(adapter)[:6]}"
        for adapter, name in zip(adapters, names, strict=True)
    }
