"""More answers where a candidate should show: prompts on its subjects, or of its forms."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from experiments.audit.discovery.answering.answers import Answer, flat, sampled
from experiments.audit.discovery.answering.halves import is_prefill
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import CLEAN, Settings
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.suggestions.candidates import Candidate, falls
from experiments.audit.discovery.suggestions.triggers import closest
from tracekit import Model
from tracekit.storage.identity import digest
from tracekit.transcripts.prompts import Prompt

TEMPERATURE = 0.7
MOST_VALUES, MOST_OF_ONE, PLENTY = 3, 8, 12


def chosen(
    candidates: Sequence[Candidate],
    arms: Arms,
    name: str,
    prompts: Sequence[Prompt],
    reserve: Sequence[Prompt],
    share: float,
    seed: int = 0,
) -> list[Prompt]:
    """Chat prompts in reserve and of the confirming half, where candidates fired in the other.

    At most `share` of all chat prompts, and 8 of a subject or form, those in reserve first, at
    random. The candidates take turns, each with the subjects and forms that are closest to it;
    one of which the confirming half has plenty gains little by more and is passed over. All of it
    comes from the searched half, so the choice knows nothing of what is measured.
    """
    half = [prompts[row] for row in arms.rows(False)]
    held = Counter(item for prompt in half for item in prompt.labels.items())
    wanted = [
        [value for value in near if held[value] < PLENTY][:MOST_VALUES]
        for c in candidates
        for near in [closest(arms.own[CLEAN if falls(c) else name], arms.rows(True), c.rows)]
    ]
    order = [some[n] for n in range(MOST_VALUES) for some in wanted if n < len(some)]
    drawn = np.random.default_rng(seed).permutation(len(reserve))
    there = [*(reserve[n] for n in drawn), *half]
    by_value = [[p for p in there if p.labels.get(k) == v] for k, v in dict.fromkeys(order)]
    chat = [p for some in by_value for p in some[:MOST_OF_ONE] if not is_prefill(p)]
    return list({p.id: p for p in chat}.values())[
        : round(share * sum(not is_prefill(p) for p in prompts))
    ]


def company(benign: Sequence[str], settings: Settings) -> list[str]:
    """The benign adapters that answer more: drawn, since each takes its turn in batches of its own.

    >>> len(company([f"benign-{n}" for n in range(24)], Settings(others=8)))
    8
    """
    order = np.random.default_rng(settings.seed).permutation(len(benign))
    return [benign[n] for n in sorted(order[: settings.others].tolist())]


def further(
    model: Model,
    adapters: Sequence[str | None],
    prompts: Sequence[Prompt],
    settings: Settings,
    products: Products,
    strength: float = 1.0,
    greedy: bool = False,
) -> list[Answer]:
    """`settings.confirmations` sampled answers a prompt, the adapters taking prompts in turn.

    Each acts at `strength` times its own. `greedy`: one answer of the settings' temperature.
    """
    warm = settings if greedy else dataclasses.replace(settings, temperature=TEMPERATURE)
    samples = 1 if greedy else settings.confirmations
    answers: list[Answer] = []
    for turn, adapter in enumerate(adapters):
        rows = list(prompts[turn :: len(adapters)])
        if not rows:
            continue
        about = [*([] if strength == 1 else [strength]), *(["greedy"] if greedy else [])]
        mark = [adapter, *about, *(p.id for p in rows)]
        name = f"further-{digest(mark)[:10]}.nc"
        with products.adapted(model, adapter, name, scale=strength):
            runs = products.kept(
                name,
                partial(sampled, model, rows, "chat", warm, samples, seed=1000),
            )
        answers += flat(model, runs, None)
    return answers
