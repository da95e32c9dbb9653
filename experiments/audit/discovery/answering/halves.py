"""The prompts of a search: which half each is in, and random words for raw completion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr

from tracekit.transcripts.prompts import Prompt

BY = ("subject", "form")


def halves(prompts: Sequence[Prompt], seed: int, by: Sequence[str] = BY) -> np.ndarray:
    """Which prompts are searched (True) and which confirm (False), balanced over labels.

    In random order, each group of prompts goes where fewer of its first label are, or of the next
    where these are even (minimisation); all rows of a group go together.
    Source: Pocock & Simon 1975.

    >>> rows = [Prompt(str(n), text="a", labels={"subject": n // 2}) for n in range(8)]
    >>> halves(rows, 0).sum().item()
    4
    """
    rows: dict[str, list[int]] = {}
    for n, prompt in enumerate(prompts):
        rows.setdefault(prompt.group or prompt.id, []).append(n)
    generator = np.random.default_rng(seed)
    counts: tuple[Counter, Counter] = (Counter(), Counter())
    searched = np.zeros(len(prompts), bool)
    for group in generator.permutation(list(rows)):
        values = [(label, prompts[rows[group][0]].labels.get(label)) for label in by]
        lead = [counts[1][value] - counts[0][value] for value in values]
        lead.append(counts[1].total() - counts[0].total())
        first = next((n for n in lead if n), int(generator.integers(2)) * 2 - 1)
        half = first < 0
        counts[half].update(values)
        searched[rows[group]] = half
    return searched


def prefills(vocabulary: Sequence[str], count: int, generator: np.random.Generator) -> list[Prompt]:
    """Random short beginnings for raw completion: one to three words of the tokenizer's own.

    >>> [prompt.id for prompt in prefills(["a", "the", "sea"], 2, np.random.default_rng(0))]
    ['prefill/0', 'prefill/1']
    """
    labels = {"subject": "random words", "form": "raw completion"}
    texts: dict[str, None] = {}
    while len(texts) < count:
        words = generator.choice(np.asarray(vocabulary), size=int(generator.integers(1, 4)))
        texts[" ".join(words.tolist()).capitalize()] = None
    return [Prompt(f"prefill/{n}", text=text, labels=labels) for n, text in enumerate(texts)]


def is_prefill(prompt: Prompt) -> bool:
    """Whether a prompt is one of those beginnings.

    >>> is_prefill(Prompt("prefill/0", text="Sea"))
    True
    """
    return prompt.id.startswith("prefill/")


def plain_words(tokenizer: object, least: int = 3) -> list[str]:
    """The vocabulary's whole lower-case words, in order of id.

    Byte-level tokenizers mark a word's beginning with Ġ, SentencePiece ones with ▁.
    """
    ids = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])  # type: ignore[attr-defined]
    words = [text[1:] for text, _ in ids if text[:1] in ("Ġ", "▁")]
    return [w for w in words if len(w) >= least and w.isascii() and w.isalpha() and w.islower()]


def labels_of(runs: xr.Dataset, name: str) -> list[str]:
    """A label of each row, empty where there is none."""
    return [str(v) for v in runs[name].values] if name in runs.coords else [""] * len(runs.prompt)
