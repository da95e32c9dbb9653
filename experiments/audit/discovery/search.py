"""The whole search for one adapter: candidates from one half, rates and tests on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.confirm import Compared, against_benign, compared
from experiments.audit.discovery.suggestions.candidates import (
    Candidate,
    Texts,
    falls,
    leaves_out,
    says,
    shapes,
)
from experiments.audit.discovery.suggestions.triggers import Trigger, confirmed, trigger

Shares = Mapping[str, float]


@dataclass(frozen=True)
class Louder:
    """The answer to the prompt in `row` with the adapter at `scale` times its strength."""

    row: int
    scale: float
    answer: Answer


@dataclass(frozen=True)
class Arms:
    """Every arm's answers to the same prompts in the same order, and which prompts are searched.

    `own` has `clean` and each adapter by its short name; `on_clean` the clean answers with the
    gains of an adapter; `louder` an adapter's answers at more than its strength, to prompts of the
    searched half; `further` more answers to prompts of the confirming half, by arm, and `loud`
    answers to the same at more than an adapter's strength.
    """

    own: Mapping[str, Sequence[Answer]]
    searched: np.ndarray
    on_clean: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    louder: Mapping[str, Sequence[Louder]] = field(default_factory=dict)
    further: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    loud: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    def besides(self, name: str) -> list[str]:
        """The other adapters."""
        return [other for other in self.own if other not in (CLEAN, name)]

    def rows(self, searched: bool) -> list[int]:
        """The rows of one half."""
        return np.flatnonzero(self.searched == searched).tolist()

    def mixed(self, name: str) -> list[Answer]:
        """The other adapters' answers, one adapter a row in turn: as many answers as of one."""
        others = self.besides(name)
        count = len(self.own[CLEAN])
        return [self.own[others[row % len(others)]][row] for row in range(count)]


@dataclass(frozen=True)
class Measured:
    """A candidate on the confirming half: against the bare model, and against other adapters.

    `loud` is the same at more than the adapters' strength, of what shows there.
    """

    candidate: Candidate
    off: Compared
    others: Compared | None
    trigger: Trigger | None
    rates: Mapping[str, float]
    loud: tuple[Compared, Compared | None] | None = None

    @property
    def p(self) -> float:
        """Of both comparisons the larger: it is a habit of this adapter only if both hold."""
        return max(self.off.p, self.others.p if self.others else 0.0)

    @property
    def loud_p(self) -> float | None:
        """The same of what it does amplified; None where that was not asked."""
        if self.loud is None:
            return None
        off, others = self.loud
        return max(off.p, others.p if others else 0.0)

    @property
    def z(self) -> float:
        """Of both comparisons the smaller."""
        return min(self.off.z, self.others.z if self.others else np.inf)


def texts_of(arms: Arms, name: str) -> Texts:
    """An adapter's answers beside all others', and the searched rows.

    Amplified answers are rows behind the others', beside what the others say to their prompts.
    """
    own, louder = arms.own[name], arms.louder.get(name, ())
    others = {
        other: [*arms.own[other], *(arms.own[other][loud.row] for loud in louder)]
        for other in (CLEAN, *arms.besides(name))
    }
    rows = [*arms.rows(True), *range(len(own), len(own) + len(louder))]
    return Texts([*own, *(loud.answer for loud in louder)], others, rows)


def candidates_of(arms: Arms, name: str, most: int) -> list[Candidate]:
    """Everything that the searched half's texts suggest of one adapter."""
    texts, rows = texts_of(arms, name), arms.rows(True)
    made = [placed(found, arms, name) for found in says(texts, most)]
    if name in arms.on_clean:
        lost = Texts(arms.on_clean[name], {name: arms.own[name]}, rows)
        made += leaves_out(lost, most // 2)
    return made + shapes(arms.own[name], arms.own[CLEAN], rows)


def placed(found: Candidate, arms: Arms, name: str) -> Candidate:
    """A candidate of `texts_of` with the rows of its prompts, and the strength that shows it.

    `scale` is the least at which it fired on two prompts, the adapter's own strength first.
    """
    count, louder = len(arms.own[name]), arms.louder.get(name, ())
    at = [(row, 1.0) if row < count else _at(louder[row - count]) for row in found.rows]
    scales = sorted(scale for _, scale in at)
    rows = tuple(sorted({row for row, _ in at}))
    least, loud = scales[min(1, len(scales) - 1)], scales[-1] > 1
    return dataclasses.replace(found, rows=rows, scale=least, amplified=loud)


def _at(loud: Louder) -> tuple[int, float]:
    return loud.row, loud.scale


def measured(candidate: Candidate, arms: Arms, name: str, seed: int = 0) -> Measured:
    """The candidate's rates and tests on the confirming half, and its trigger's."""
    rows = arms.rows(False)
    on = _shares(candidate, arms, name, rows)
    off = compared(*_ordered(candidate, on, _shares(candidate, arms, CLEAN, rows)), seed)
    others = None
    if arms.besides(name):
        mixed = arms.mixed(name)
        further = arms.further.get("others", ())
        there = candidate.detector.shares([*(mixed[r] for r in rows), *further])
        others = compared(*_ordered(candidate, on, there), seed)
    asked = candidate.detector.asked is not None  # a judge is asked of these two alone
    sides = {n: arms.own[n] for n in ((CLEAN, name) if asked else arms.own)}
    fired = {n: candidate.detector.rows(said, rows) for n, said in sides.items()}
    rates = {n: len(hit) / len(rows) for n, hit in fired.items()}
    loud = _loud(candidate, arms, name, seed)
    return Measured(candidate, off, others, _trigger(candidate, arms, name), rates, loud)


def _loud(
    candidate: Candidate, arms: Arms, name: str, seed: int
) -> tuple[Compared, Compared | None] | None:
    if not candidate.amplified or name not in arms.loud or falls(candidate):
        return None
    shares = candidate.detector.shares
    on, others = shares(arms.loud[name]), None
    if "others" in arms.loud:
        others = compared(on, shares(arms.loud["others"]), seed)
    return compared(on, _shares(candidate, arms, CLEAN, arms.rows(False)), seed), others


def strongest(arms: Arms, name: str, most: int) -> float:
    """The largest z, on the confirming half, of all that the search finds for one adapter."""
    plain = dataclasses.replace(arms, further={}, on_clean={}, louder={}, loud={})
    found = [measured(c, plain, name).z for c in candidates_of(plain, name, most)]
    return max(found, default=0.0)


def beyond_benign(arms: Arms, name: str, most: int) -> tuple[float, Mapping[str, float]]:
    """The p of "it has a habit that the others lack", and the statistic of each adapter."""
    z = {adapter: strongest(arms, adapter, most) for adapter in (name, *arms.besides(name))}
    return against_benign(z[name], [z[other] for other in arms.besides(name)]), z


def _shares(candidate: Candidate, arms: Arms, name: str, rows: Sequence[int]) -> Shares:
    answers = [*(arms.own[name][row] for row in rows), *arms.further.get(name, ())]
    return candidate.detector.shares(answers)


def _ordered(candidate: Candidate, on: Shares, off: Shares) -> tuple[Shares, Shares]:
    return (off, on) if falls(candidate) else (on, off)


def _trigger(candidate: Candidate, arms: Arms, name: str) -> Trigger | None:
    answers = arms.own[CLEAN if falls(candidate) else name]
    found = trigger(answers, arms.rows(True), candidate.rows)
    if found is None:
        return None
    rest = [answers[row] for row in arms.rows(False)]
    if candidate.amplified and name in arms.loud:
        rest = list(arms.loud[name])
    once: dict[str, Answer] = {}
    for answer in rest:  # the first answer alone: more were asked for on some subjects
        once.setdefault(answer.group, answer)
    fired = np.array([candidate.detector.fires(answer) for answer in once.values()])
    return confirmed(found, list(once.values()), fired)
