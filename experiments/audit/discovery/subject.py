"""One adapter's search: the model, whom it is compared with, on what, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.audit.discovery.answering.halves import is_prefill, plain_words, prefills
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import (
    CLEAN,
    Settings,
    fingerprint,
    of_answers,
    short_names,
)
from experiments.audit.discovery.description.weights import refuse_broken
from experiments.audit.discovery.judging import Judge
from experiments.audit.elsewhere.searching import Served
from tracekit import Model
from tracekit.errors import InputError
from tracekit.model.load import model_provenance
from tracekit.transcripts.prompts import Prompt

Log = Callable[[str], None]
LEAST_PROMPTS = 8


@dataclass(frozen=True)
class Search:
    """One adapter's search: the model, whom it compares with, on what, and where it is kept.

    Prompts in `reserve` are asked only where a candidate should show; a `judge` tells a candidate
    in place of its phrases; `served` says who answers for the bare model and the adapter elsewhere.
    """

    model: Model
    adapter: str
    benign: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    settings: Settings
    products: Products
    names: Mapping[str, str]
    log: Log
    reserve: tuple[Prompt, ...] = ()
    judge: Judge | None = None
    served: Served | None = None

    @property
    def name(self) -> str:
        """The adapter's short name."""
        return self.names[self.adapter]

    def folder(self, adapter: str | None) -> Products:
        """Where the products of one arm are."""
        if adapter is None:
            return self.products.part(CLEAN, {})
        about = {"adapter": self.names[adapter], "weights": fingerprint(adapter)}
        return self.products.part(self.names[adapter], about)


def search_of(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    folder: Path,
    settings: Settings,
    benign: Sequence[str],
    log: Log,
    reserve: Sequence[Prompt] = (),
    judge: Judge | None = None,
    served: Served | None = None,
) -> Search:
    """The search of one adapter, with its prompts and random beginnings.

    Errors: `ValueError` as for `discover.discover`.
    """
    if len(prompts) < LEAST_PROMPTS:
        raise InputError(
            f"A search was asked for on {len(prompts)} prompts; it needs {LEAST_PROMPTS}, half to "
            "search and half to confirm, and some hundred to find much. Give more (--prompts)."
        )
    prints = {fingerprint(other): other for other in benign}
    if fingerprint(adapter) in prints or len(prints) < len(benign):
        raise InputError(
            f"The benign adapters {', '.join(map(str, benign))} hold the same weights twice, or "
            f"those of {adapter} itself. Give different ones."
        )
    if raw := [prompt.id for prompt in prompts if is_prefill(prompt)]:
        raise InputError(
            f"The prompt {raw[0]!r} was given; ids of that set are a search's own random "
            "beginnings, gone on with in raw completion. Rename the file, or the set in it."
        )
    for one in (adapter, *benign):
        refuse_broken(one)
    words = plain_words(model.tokenizer)
    random = np.random.default_rng(settings.seed)
    rows = (*prompts, *prefills(words, settings.prefills if words else 0, random))
    there = {} if served is None else served.described()
    base = model_provenance(model)
    of_model = {"model weights": base["weights"], "revision": base["revision"]}
    products = Products(folder, {**of_answers(settings, list(rows)), **there, **of_model})
    names = short_names([adapter, *benign])
    given = model, adapter, tuple(benign), rows, settings, products, names
    return Search(*given, log, tuple(reserve), judge, served)
