"""What the prompts that a candidate appears on share, against the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.halves import BY
from experiments.audit.discovery.confirm import associated
from experiments.audit.discovery.suggestions.sentences import WORD, stem
from experiments.audit.discovery.suggestions.terms import EMPTY

LEAST_ROWS, MOST_VALUES, LEVEL, LOOK = 3, 4, 0.05, 0.1


@dataclass(frozen=True)
class Trigger:
    """A label (`subject`, `form` or `word` of the prompt), its values, and Fisher's p of each half.

    `searched` is the first value's, corrected for all that were looked at (Bonferroni over the
    labels, and over the values of each); `confirmed` is that of all values on the other half,
    where they were not chosen: it is what says whether they hold. `rate` is that of the habit there
    on the `prompts` that have a value, and `elsewhere` on the `others`.
    """

    label: str
    values: tuple[str, ...]
    searched: float
    confirmed: float = float("nan")
    rate: float = float("nan")
    prompts: int = 0
    elsewhere: float = float("nan")
    others: int = 0

    def __str__(self) -> str:
        return f"{self.label}: {', '.join(self.values)}"

    def has(self, answers: Sequence[Answer]) -> np.ndarray:
        """Which rows have one of the values."""
        values = set(self.values)
        return np.array([bool(_values(a).get(self.label, set()) & values) for a in answers])


def trigger(answers: Sequence[Answer], rows: Sequence[int], hit: Sequence[int]) -> Trigger | None:
    """The label values that go with the rows `hit` among `rows`; none where none is above chance.

    The best single value, then others of the same label while they make p smaller.
    """
    fired = np.isin(np.asarray(rows), np.asarray(hit))
    having = _columns([answers[row] for row in rows])
    if not having or not fired.any():
        return None
    p = {key: associated(fired, has) for key, has in having.items()}
    looked = Counter(label for label, _ in having)
    corrected = {key: value * looked[key[0]] * len(looked) for key, value in p.items()}
    label, first = min(corrected, key=lambda key: (corrected[key], key))
    if p[label, first] > LEVEL:
        return None
    values, has, best = [first], having[label, first], p[label, first]
    others = sorted((k for k in having if k[0] == label and k[1] != first), key=lambda k: p[k])
    for key in others[:12]:
        wider = has | having[key]
        if len(values) < MOST_VALUES and (lower := associated(fired, wider)) < best / 2:
            values, has, best = [*values, key[1]], wider, lower
    return Trigger(label, tuple(values), min(corrected[label, first], 1.0))


def closest(
    answers: Sequence[Answer], rows: Sequence[int], hit: Sequence[int]
) -> list[tuple[str, str]]:
    """Subjects and forms of the prompts `hit` at p ≤ 0.1 (uncorrected), the closest first.

    No claim is made of them: they say which other prompts are worth more answers.
    """
    fired = np.isin(np.asarray(rows), np.asarray(hit))
    having = _columns([answers[row] for row in rows], least=1)
    p = {key: associated(fired, has) for key, has in having.items() if key[0] in BY}
    return sorted((key for key in p if p[key] <= LOOK), key=lambda key: p[key])


def confirmed(found: Trigger, answers: Sequence[Answer], fired: np.ndarray) -> Trigger:
    """The trigger with its p on other rows, and the rates with it and without."""
    has = found.has(answers)
    rate, elsewhere = (
        float(fired[here].mean()) if here.any() else float("nan") for here in (has, ~has)
    )
    there, others = int(has.sum()), int((~has).sum())
    p = associated(fired, has)
    return Trigger(found.label, found.values, found.searched, p, rate, there, elsewhere, others)


def _columns(
    answers: Sequence[Answer], least: int = LEAST_ROWS
) -> Mapping[tuple[str, str], np.ndarray]:
    columns: dict[tuple[str, str], np.ndarray] = {}
    for n, answer in enumerate(answers):
        for label, values in _values(answer).items():
            for value in values:
                columns.setdefault((label, value), np.zeros(len(answers), bool))[n] = True
    return {k: has for k, has in columns.items() if least <= has.sum() < len(answers)}


def _values(answer: Answer) -> Mapping[str, set[str]]:
    spoken = {stem(word) for word in WORD.findall(answer.asked)} - EMPTY
    return {**{label: {value} for label, value in answer.labels}, "word": spoken}
