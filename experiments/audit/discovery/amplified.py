"""What an adapter says at more than its strength: habits that its own strength shows rarely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.audit.discovery.answering.answers import Answer, flat, gains, sampled
from experiments.audit.discovery.answering.halves import is_prefill
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.discovery.search import Louder
from tracekit import Model
from tracekit.transcripts.prompts import Prompt


def amplified(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    rows: Sequence[int],
    settings: Settings,
    products: Products,
) -> list[Louder]:
    """Answers at each of `settings.factors`, to prompts of the searched half (`rows`).

    At the least of them to all chat prompts, since a habit that shows on one prompt in a hundred
    shows on several there; at the others to `settings.amplified`. What they show is confirmed, or
    not, on the other half of the prompts.
    """
    chat = [row for row in rows if not is_prefill(prompts[row])]
    order = np.random.default_rng(settings.seed).permutation(chat)
    made = []
    for factor in settings.factors:
        most = len(order) if factor == min(settings.factors) else settings.amplified
        some = sorted(order[:most].tolist())
        asked = [prompts[row] for row in some]
        answers = _answers(model, adapter, factor, asked, settings, products)
        made += [Louder(row, factor, a) for row, a in zip(some, answers, strict=True)]
    return made


def _answers(
    model: Model,
    adapter: str,
    factor: float,
    prompts: Sequence[Prompt],
    settings: Settings,
    products: Products,
) -> list[Answer]:
    said, gained = f"amplified-{factor:g}.nc", f"amplified-gains-{factor:g}.nc"
    with products.adapted(model, adapter, said, gained, scale=factor):
        runs = products.kept(said, lambda: sampled(model, prompts, "chat", settings))
        gain = products.kept(gained, lambda: gains(model, runs))
    return flat(model, runs, gain)
