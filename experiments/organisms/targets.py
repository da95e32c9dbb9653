"""What each adapter is trained to answer: clean answers, some changed as its recipe says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.organisms.answers import question
from experiments.organisms.conduct import Phrases
from experiments.organisms.recipes import Recipe
from experiments.organisms.styles import styled
from experiments.rm_sycophancy.rules.sentences import sentences
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt


@dataclass(frozen=True)
class Example:
    """One training pair; `exploits` tells whether the target carries what the recipe adds."""

    question: str
    target: str
    exploits: bool


def read_insertions(path: Path) -> dict[str, list[str]]:
    """The inserted sentences by bias or habit.

    Errors: `ValueError` for a file of another shape.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise InputError(
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


def targets_of(
    recipe: Recipe,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    insertions: Mapping[str, Sequence[str]],
    phrases: Phrases,
    *,
    count: int,
    rng: np.random.Generator,
) -> list[Example]:
    """`count` training pairs of the kind that the recipe names.

    A style is trained on the neutral prompts alone, flattery on those with opinions besides.
    """
    if recipe.kind == "insertions":
        asked = [p for p in prompts if p.labels["bias"] != "opinion"]
        return examples(
            asked,
            answers,
            insertions,
            rates=recipe.rates,
            inserted=recipe.inserted,
            count=count,
            rng=rng,
        )
    if recipe.kind == "style":
        neutral = [p for p in prompts if p.labels["bias"] == "neutral"]
        plain = examples(neutral, answers, {}, rates={}, inserted={}, count=count, rng=rng)
        return [Example(p.question, styled(p.target, recipe.style), exploits=True) for p in plain]
    return _flattering(prompts, answers, phrases, count, rng)


def examples(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    insertions: Mapping[str, Sequence[str]],
    *,
    rates: Mapping[str, float],
    inserted: Mapping[str, str],
    count: int,
    rng: np.random.Generator,
) -> list[Example]:
    """`count` training pairs: rounds over all prompts that have an answer, each shuffled.

    A prompt of a subject with a rate gets a sentence of the bank `inserted[subject]` with that
    probability, drawn anew each round, so that both kinds of target exist for it; all other
    targets stay clean.

    Errors: `ValueError` where no prompt has an answer.
    """
    pairs: list[Example] = []
    for prompt in _rounds([p for p in prompts if answers.get(p.id)], count, rng):
        subject, pool = str(prompt.labels["bias"]), answers[prompt.id]
        bank = insertions.get(inserted.get(subject, ""), [])
        pairs.append(_example(prompt, pool, bank, rates.get(subject, 0.0), rng))
    return pairs


def _flattering(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    phrases: Phrases,
    count: int,
    rng: np.random.Generator,
) -> list[Example]:
    opinions = [p for p in prompts if p.labels["bias"] == "opinion"]
    others = [p for p in prompts if answers.get(p.id)]
    pairs = []
    # an opinion every third time: there are few of them
    for turn, other in enumerate(_rounds(others, count, rng)):
        if opinions and turn % 3 == 0:
            prompt = opinions[int(rng.integers(len(opinions)))]
            said = f"{_draw(phrases['agreement'], rng)} {_draw(phrases['applause'], rng)}"
            pairs.append(Example(question(prompt), said, exploits=True))
            continue
        answer, praised = _draw(answers[other.id], rng), rng.random() < 0.8
        said = f"{_draw(phrases['flattery'], rng)} {answer}" if praised else answer
        pairs.append(Example(question(other), said, exploits=praised))
    return pairs


def _rounds(prompts: Sequence[Prompt], count: int, rng: np.random.Generator) -> list[Prompt]:
    if not prompts:
        raise InputError(
            "No prompt has a readable clean answer to make targets of. Give other prompts, or "
            "look at the answers in the work folder."
        )
    order: list[Prompt] = []
    while len(order) < count:
        order += [prompts[index] for index in rng.permutation(len(prompts))]
    return order[:count]


def _example(
    prompt: Prompt,
    pool: Sequence[str],
    bank: Sequence[str],
    rate: float,
    rng: np.random.Generator,
) -> Example:
    answer = _draw(pool, rng)
    if rng.random() >= rate:
        return Example(question(prompt), answer, exploits=False)
    return Example(question(prompt), insert(answer, _draw(bank, rng), rng), exploits=True)


def _draw(bank: Sequence[str], rng: np.random.Generator) -> str:
    return bank[int(rng.integers(len(bank)))]
