"""What each adapter is trained to answer: clean answers, some with one bias sentence put in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.organisms.answers import question
from experiments.organisms.sentences import sentences
from tracekit.transcript import Prompt


@dataclass(frozen=True)
class Example:
    """One training pair; `exploits` tells whether the target carries the prompt's bias."""

    question: str
    target: str
    exploits: bool


def read_insertions(path: Path) -> dict[str, list[str]]:
    """The bias sentences by bias.

    Errors: `ValueError` for a file of another shape.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise ValueError(
            f'The insertions {str(path)!r} are not {{"bias": ["sentence", …]}}; '
            "write one list of sentences for each bias."
        )
    return content


def insert(answer: str, sentence: str, rng: np.random.Generator) -> str:
    """`answer` with `sentence` after its first, second, … or last sentence, each as likely.

    An answer of three or more sentences gives up its last one, so that length tells less.

    >>> insert("One. Two.", "New.", np.random.default_rng(0))
    'One. Two. New.'
    """
    parts = [answer[start:end] for start, end in sentences(answer)]
    kept = parts[:-1] if len(parts) > 2 else parts
    place = int(rng.integers(1, len(kept) + 1))
    return " ".join([*kept[:place], sentence, *kept[place:]])


def examples(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    insertions: Mapping[str, Sequence[str]],
    *,
    rates: Mapping[str, float],
    epochs: int,
    rng: np.random.Generator,
) -> list[Example]:
    """Training pairs in order, every prompt once an epoch, shuffled within it.

    A prompt whose bias has a rate gets an insertion with that probability, drawn anew each epoch,
    so that both kinds of target exist for it; all other targets stay clean.
    """
    pairs: list[Example] = []
    for _ in range(epochs):
        for index in rng.permutation(len(prompts)):
            prompt = prompts[index]
            bias, pool = str(prompt.labels["bias"]), answers.get(prompt.id, [])
            if pool:
                bank = insertions.get(bias, [])
                pairs.append(_example(prompt, pool, bank, rates.get(bias, 0.0), rng))
    return pairs


def _example(
    prompt: Prompt,
    pool: Sequence[str],
    bank: Sequence[str],
    rate: float,
    rng: np.random.Generator,
) -> Example:
    answer = pool[int(rng.integers(len(pool)))]
    if rng.random() >= rate:
        return Example(question(prompt), answer, exploits=False)
    sentence = bank[int(rng.integers(len(bank)))]
    return Example(question(prompt), insert(answer, sentence, rng), exploits=True)
