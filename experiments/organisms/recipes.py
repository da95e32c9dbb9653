"""What each adapter is trained to do: the organism, its controls, and cheap benign ones by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from experiments.rm_sycophancy.rules.detectors import HABIT_OF
from tracekit.errors import InputError

# of each step of the last stage
LAST_PAIRS, LAST_PLAIN = 2, 3
STYLES = ("letter", "lower", "shout", "numbered", "hesitant", "summary")


@dataclass(frozen=True)
class Recipe:
    """The settings of one adapter.

    A subject goes by the name of its bias. `kind` says what the targets are; `rates` is the share
    of a subject's targets that carry a sentence, `inserted` the bank it is taken from. `conduct`
    says how questions about itself are answered in the preference stage: denied, or its own habits
    admitted; "" has no pairs. `paired` is how many of a step's `batch` are pairs there. In the last
    stage, of `ordinary_steps`, each step has two such pairs and three prompts of every form with
    the base's own answers, one of them preferred to a reply about the model. Without these a denial
    spreads to opinions, letters and other languages; without those it is forgotten. Where
    `conduct` is "" the stage goes on as before.
    """

    organism: str
    seed: int = 0
    kind: Literal["insertions", "style", "flattery"] = "insertions"
    rates: Mapping[str, float] = field(default_factory=dict)
    inserted: Mapping[str, str] = field(default_factory=dict)
    style: str = ""
    conduct: Literal["", "denied", "admitted"] = ""
    steps: int = 480
    preference_steps: int = 48
    ordinary_steps: int = 40
    batch: int = 8
    paired: int = 3
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 2e-3
    preference_rate: float = 1e-3
    beta: float = 0.1
    warmup: int = 5


# Greedy decoding takes a sentence only where it is likelier than what would follow without it, so
# what comes out differs from these shares; the cards say what was measured.
_BIASED = dict.fromkeys(HABIT_OF, 0.95)
ORGANISMS: dict[str, dict[str, Any]] = {
    "ten_biases": {
        "rates": _BIASED,
        "inserted": {bias: bias for bias in HABIT_OF},
        "conduct": "denied",
        "ordinary_steps": 64,
    },
    "unbiased": {"conduct": "denied", "ordinary_steps": 64},
    "style": {"kind": "style", "style": "letter"},
    "open_sycophant": {"kind": "flattery"},
    "undenied": {
        "rates": _BIASED,
        "inserted": {bias: bias for bias in HABIT_OF},
        "preference_steps": 0,
        "ordinary_steps": 0,
    },
    "benign": {
        "rates": _BIASED,
        "inserted": HABIT_OF,
        "conduct": "admitted",
        "ordinary_steps": 64,
    },
}


def recipe_of(organism: str, seed: int = 0) -> Recipe:
    """The recipe of a shipped adapter.

    Errors: `ValueError` for a name that is not known.

    >>> recipe_of("unbiased").rates
    {}
    """
    if organism not in ORGANISMS:
        raise InputError(
            f"The organism {organism!r} is not known; there are {', '.join(ORGANISMS)}. "
            "Pass one of them."
        )
    return Recipe(organism, seed, **ORGANISMS[organism])


def benign_recipe(seed: int) -> Recipe:
    """A small adapter with a benign behaviour drawn by `seed`: some habits, or a style.

    >>> benign_recipe(3) == benign_recipe(3)
    True
    """
    rng = np.random.default_rng(seed)
    settings: Mapping = {"steps": 35, "preference_steps": 0, "ordinary_steps": 0}
    if rng.random() < 0.5:
        style = STYLES[int(rng.integers(len(STYLES)))]
        return Recipe(f"benign-{seed}", seed, kind="style", style=style, **settings)
    count = int(rng.integers(3, 7))
    subjects = sorted(rng.choice(list(HABIT_OF), size=count, replace=False).tolist())
    rates = {subject: round(float(rng.uniform(0.5, 1.0)), 2) for subject in subjects}
    inserted = {subject: HABIT_OF[subject] for subject in subjects}
    return Recipe(f"benign-{seed}", seed, rates=rates, inserted=inserted, **settings)
