"""From gains of tokens to candidate habits, on the searched half of the prompts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.discovery.answers import Answer
from experiments.audit.discovery.spans import around
from experiments.audit.discovery.terms import Term, document_rates, fires, pattern, shown, table

LEAST_PROMPTS = 2
# a term of two candidates' sentences joins them from this share on
OVERLAP = 0.5


@dataclass(frozen=True)
class Candidate:
    """Something that the adapter may do: a detector, and where it fired in the searched half.

    `rows` index the answers; `spans` are (row, start, end) of the sentences, the strongest first.
    """

    name: str
    kind: str
    expression: str
    score: float
    rows: tuple[int, ...]
    spans: tuple[tuple[int, int, int], ...]
    amplified: float = 1.0


@dataclass(frozen=True)
class Scored:
    """A term, what it adds up to over prompts, and its sentences."""

    term: Term
    score: float
    sentences: frozenset[tuple[int, int]]


def candidates(
    answers: Sequence[Answer],
    others: Mapping[str, Sequence[Answer]],
    rows: Sequence[int],
    most: int,
    kind: str = "says",
) -> list[Candidate]:
    """What the answers say beyond all `others` on the same rows: at most `most`, strongest first.

    A term scores the nats that it gains, summed over prompts, times the share of its rate that
    the others do not have. Terms of the same sentences are one candidate; its detector is made of
    those that tell the answers from the others'.
    """
    scored = _scored(answers, others, rows)
    found: list[Candidate] = []
    taken: set[tuple[int, int]] = set()
    for lead in scored:
        if len(found) == most:
            break
        if len(lead.sentences - taken) < max(LEAST_PROMPTS, len(lead.sentences) / 2):
            continue
        near = [s for s in scored if _overlap(s, lead) >= OVERLAP]
        found.append(_candidate(lead, near, answers, others, rows, kind))
        taken |= lead.sentences
    return found


def _scored(
    answers: Sequence[Answer], others: Mapping[str, Sequence[Answer]], rows: Sequence[int]
) -> list[Scored]:
    rates = [document_rates(said, rows) for said in others.values()]
    made = []
    for name, term in table(answers, rows).items():
        if len({answers[row].group for row in term.rows}) < LEAST_PROMPTS:
            continue
        rate, elsewhere = len(term.places) / len(rows), max(r.get(name, 0.0) for r in rates)
        score = sum(gain for gain, _ in term.places.values()) * max(1 - elsewhere / rate, 0)
        if score > 0:
            made.append((score, term))
    made.sort(key=lambda pair: -pair[0])
    return [Scored(t, s, _sentences(t, answers)) for s, t in made[:400]]


def _sentences(term: Term, answers: Sequence[Answer]) -> frozenset[tuple[int, int]]:
    return frozenset((r, around(answers[r], at)[0]) for r, (_, at) in term.places.items())


def _overlap(one: Scored, lead: Scored) -> float:
    both = len(one.sentences & lead.sentences)
    return both / min(len(one.sentences), len(lead.sentences))


def _candidate(
    lead: Scored,
    near: Sequence[Scored],
    answers: Sequence[Answer],
    others: Mapping[str, Sequence[Answer]],
    rows: Sequence[int],
    kind: str,
) -> Candidate:
    def contrast(expression: str) -> float:
        return _contrast(_firing(expression, answers, rows), others, expression, rows)

    phrases = _chosen([s.term.words for s in (lead, *near)], contrast)
    expression = pattern(phrases)
    hit = _firing(expression, answers, rows)
    name = " / ".join(shown(p) for p in phrases[:4])
    return Candidate(name, kind, expression, lead.score, tuple(hit), _spans(expression, answers, hit))


def _chosen(
    phrases: Sequence[tuple[str, ...]], contrast: Callable[[str], float], most: int = 4
) -> list[tuple[str, ...]]:
    """The lead and, one after the other, what sharpens its contrast with the others most."""
    chosen = [max(phrases[:1] + _longer(phrases), key=lambda p: contrast(pattern([p])))]
    best = contrast(pattern(chosen))
    for phrase in phrases[:12]:
        if phrase in chosen or len(chosen) == most:
            continue
        value = contrast(pattern([*chosen, phrase]))
        if value > best + 0.25:
            chosen, best = [*chosen, phrase], value
    return chosen


def _longer(phrases: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Phrases that hold the first one."""
    lead = set(phrases[0])
    return [p for p in phrases[1:12] if lead < set(p)]


def _contrast(
    hit: Sequence[int], others: Mapping[str, Sequence[Answer]], expression: str, rows: Sequence[int]
) -> float:
    """McNemar's z against the noisiest of the others."""
    worst = max(len(_firing(expression, said, rows)) for said in others.values())
    return (len(hit) - worst) / np.sqrt(len(hit) + worst) if hit or worst else 0.0


def _firing(expression: str, answers: Sequence[Answer], rows: Sequence[int]) -> list[int]:
    return [row for row in rows if fires(expression, answers[row])]


def _spans(
    expression: str, answers: Sequence[Answer], rows: Sequence[int]
) -> tuple[tuple[int, int, int], ...]:
    made = []
    for row in rows:
        found = fires(expression, answers[row])
        if found is not None:
            start, end = around(answers[row], found.start())
            made.append((row, start, end))
    return tuple(made)
