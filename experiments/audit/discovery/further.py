"""More answers where a candidate's trigger says that it should show: prompts of the other half."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nnsight import TransformersModel

import tracekit as tk
from experiments.audit.discovery.answers import CLEAN, Answer, flat, sampled
from experiments.audit.discovery.candidates import Candidate, falls
from experiments.audit.discovery.products import Products
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.settings import Settings
from experiments.audit.discovery.triggers import trigger
from tracekit.storage.provenance import digest
from tracekit.transcripts.prompts import Prompt

TEMPERATURE = 0.7
MOST_PROMPTS = 64


def chosen(
    candidates: Sequence[Candidate], arms: Arms, name: str, prompts: Sequence[Prompt]
) -> list[Prompt]:
    """Chat prompts of the confirming half that have a candidate's trigger, the strongest's first.

    Triggers come from the searched half alone, so the choice knows nothing of what is measured.
    """
    rows, picked = arms.rows(False), dict[int, None]()
    for candidate in candidates:
        answers = arms.own[CLEAN if falls(candidate) else name]
        found = trigger(answers, arms.rows(True), candidate.rows)
        if found is not None and found.label != "form":
            has = found.has([answers[row] for row in rows])
            picked.update(dict.fromkeys(row for row, there in zip(rows, has, strict=True) if there))
    chat = [prompts[row] for row in picked if not prompts[row].id.startswith("prefill/")]
    return chat[:MOST_PROMPTS]


def further(
    model: TransformersModel,
    adapters: Sequence[str | None],
    prompts: Sequence[Prompt],
    settings: Settings,
    products: Products,
) -> list[Answer]:
    """`settings.confirmations` sampled answers a prompt, the adapters taking prompts in turn."""
    warm = dataclasses.replace(settings, temperature=TEMPERATURE)
    answers: list[Answer] = []
    for turn, adapter in enumerate(adapters):
        rows = list(prompts[turn :: len(adapters)])
        if not rows:
            continue
        name = f"further-{digest([adapter, *(p.id for p in rows)])[:10]}.nc"
        with tk.adapter(model, adapter):
            runs = products.kept(
                name,
                lambda r=rows: sampled(model, r, "chat", warm, settings.confirmations, seed=1000),
            )
        answers += flat(runs, None)
    return answers
