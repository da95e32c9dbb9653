"""What every library is given: texts, words, directions, and the names of the twelve tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TASKS: Mapping[str, str] = {
    "adapters_by_layer": "compare adapters by layer",
    "patterns_and_units": "attention patterns and MLP hidden units, labelled",
    "lens_table": "logit-lens table",
    "turns": "raw text and multi-turn chat, tokens of the second user turn",
    "top_token": "top token on a trait, with its context",
    "patching": "activation patching with a metric, denoising and noising",
    "attribution": "gradient attribution",
    "dose_response": "steered dose–response with a random band",
    "head_ablation": "an ablation by head",
    "conditional": "conditional steering of a generation",
    "strengths": "adapter strength sweep",
    "divergence": "KL between two weights",
}

TWICE = " table green seven river quiet lamp" * 2
TOWER = "The Eiffel Tower stands in the city of"
PLACES = (" Paris", " Rome")
CAPITAL = "Rome and Paris are old. The capital of Italy is"
POEM = "What a wonderful poem! I loved every single line of it."
# three tokens: a library that patches one by one takes ninety forwards a direction
CLEAN, CORRUPTED = " Rome is in", " Paris is in"
LANDS = (" Italy", " France")
GIFT = "When Mary and John went to the shop, John gave a drink to"
NAMES = (" Mary", " John")
SOUP = "To make a simple tomato soup, try a little grated"
TALK = [
    {"role": "user", "content": "Where is Paris?"},
    {"role": "assistant", "content": "It is in France."},
    {"role": "user", "content": "Thank you. And how far is it to Rome?"},
]
DOSES = (-1.0, -0.5, 0.0, 0.5, 1.0)
# the adapter's own strength last: some libraries leave it as it was set
SCALES = (0.0, 0.5, 2.0, 1.0)
TRAIT_LAYER, PROBE_LAYER = 15, 10


def direction(seed: int, norm: float, width: int = 576) -> np.ndarray:
    """A direction that all libraries are given alike: (dim)."""
    drawn = np.random.default_rng(seed).normal(size=width)
    return (norm * drawn / np.linalg.norm(drawn)).astype(np.float32)


def arguments(task: str) -> dict[str, Any]:
    """The directions that a task takes besides the model."""
    trait, probe = direction(0, 60.0), direction(1, 1.0)
    taken = {"top_token": [trait], "dose_response": [trait], "conditional": [trait, probe]}
    return dict(zip(("vector", "probe"), taken.get(task, ()), strict=False))
