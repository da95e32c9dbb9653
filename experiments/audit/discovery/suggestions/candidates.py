"""From gains of tokens to candidate habits, on the searched half of the prompts alone."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.suggestions.conduct import SHAPES
from experiments.audit.discovery.suggestions.detectors import (
    FALLS,
    LACKS,
    LESS,
    MORE,
    SAYS,
    Detector,
    Place,
)
from experiments.audit.discovery.suggestions.sentences import WORD, around
from experiments.audit.discovery.suggestions.terms import Phrase, Term, pattern, shown, table

LEAST_PROMPTS = 2
# a term with more than this share of its sentences in another's belongs to that one
OVERLAP = 0.5
MOST_PHRASES = 4
# of a phrase that joins a detector: the share of its prompts that are the answers' own
PRECISION = 0.9


@dataclass(frozen=True)
class Candidate:
    """Something that the adapter may do: a detector, and the rows of the searched half it has.

    `score` is in nats, summed over prompts; `scale` the adapter's strength where it was found;
    `amplified` whether it shows at more than the adapter's own.
    """

    name: str
    detector: Detector
    score: float
    rows: tuple[int, ...]
    scale: float = 1.0
    amplified: bool = False


@dataclass(frozen=True)
class _Scored:
    term: Term
    score: float
    sentences: frozenset[Place]


@dataclass(frozen=True)
class Texts:
    """Answers beside those of others to the same prompts, and the rows that may be looked at."""

    answers: Sequence[Answer]
    others: Mapping[str, Sequence[Answer]]
    rows: Sequence[int]

    @functools.cached_property
    def terms(self) -> dict[Phrase, Term]:
        """The answers' terms."""
        return table(self.answers, self.rows)

    @functools.cached_property
    def elsewhere(self) -> list[dict[Phrase, Term]]:
        """The others' terms, one table each."""
        return [table(said, self.rows) for said in self.others.values()]

    def contrast(self, *phrases: Phrase) -> float:
        """McNemar's z of any of the phrases against the noisiest of the others, as if apart."""
        hit = _count(self.terms, phrases)
        worst = max(_count(terms, phrases) for terms in self.elsewhere)
        return (hit - worst) / np.sqrt(hit + worst) if hit + worst else 0.0

    def precise(self, phrase: Phrase) -> bool:
        """Whether hardly any other has the phrase."""
        hit = _count(self.terms, [phrase])
        return hit >= PRECISION * (hit + max(_count(terms, [phrase]) for terms in self.elsewhere))


def says(texts: Texts, most: int, kind: str = SAYS) -> list[Candidate]:
    """What the answers say beyond all others: at most `most` candidates, strongest first.

    A term scores the nats that it gains, summed over prompts, times the share of its rate that
    the others do not have. Terms of the same sentences are one candidate; its detector is made of
    those that tell the answers from the others'.
    """
    scored = _scored(texts)
    found: list[Candidate] = []
    taken: set[Place] = set()
    for lead in scored:
        if len(found) == most:
            break
        if len(lead.sentences - taken) < max(LEAST_PROMPTS, len(lead.sentences) / 2):
            continue
        near = [s.term.words for s in scored if s is not lead and _within(s, lead)]
        made = candidate_of([lead.term.words, *near], lead.score, texts, kind)
        if len(made.rows) < LEAST_PROMPTS:
            continue  # letters whose upper and lower case are no pair: no expression finds them
        found.append(made)
        taken |= lead.sentences | made.detector.sentences(texts.answers, texts.rows)
    return found


def leaves_out(texts: Texts, most: int) -> list[Candidate]:
    """What the bare model says and the adapter (the others) does not: `texts` with sides changed.

    The gains of the bare answers count with the opposite sign: what the adapter makes unlikely.
    """
    lost = [dataclasses.replace(a, gains=-a.gains) for a in texts.answers]
    return says(Texts(lost, texts.others, texts.rows), most, LACKS)


def shapes(
    answers: Sequence[Answer], clean: Sequence[Answer], rows: Sequence[int]
) -> list[Candidate]:
    """Every shape whose rate differs on these rows, in the direction that it differs in."""
    made = []
    for name in SHAPES:
        on, off = (Detector(MORE, name).rows(side, rows) for side in (answers, clean))
        kind, hit = (MORE, on) if len(on) >= len(off) else (LESS, off)
        if len(on) != len(off):
            made.append(Candidate(name, Detector(kind, name), 0.0, tuple(hit)))
    return made


def falls(candidate: Candidate) -> bool:
    """Whether the adapter makes it rarer."""
    return candidate.detector.kind in FALLS


def _count(terms: Mapping[Phrase, Term], phrases: Sequence[Phrase]) -> int:
    return len(set().union(*(terms[p].rows for p in phrases if p in terms)))


def _scored(texts: Texts) -> list[_Scored]:
    made = []
    for name, term in texts.terms.items():
        if len({texts.answers[row].group for row in term.rows}) < LEAST_PROMPTS:
            continue
        elsewhere = max(_count(terms, [name]) for terms in texts.elsewhere) / len(term.rows)
        score = sum(gain for gain, _ in term.places.values()) * max(1 - elsewhere, 0)
        if score > 0:
            made.append((score, term))
    made.sort(key=lambda pair: -pair[0])
    return [_Scored(t, s, _sentences(t, texts.answers)) for s, t in made[:400]]


def _sentences(term: Term, answers: Sequence[Answer]) -> frozenset[Place]:
    return frozenset((r, around(answers[r], at)[0]) for r, (_, at) in term.places.items())


def _within(one: _Scored, lead: _Scored) -> bool:
    """Whether most sentences of a term are the lead's too."""
    both = len(one.sentences & lead.sentences)
    return both >= LEAST_PROMPTS and both > OVERLAP * len(one.sentences)


def candidate_of(
    phrases: Sequence[Phrase], score: float, texts: Texts, kind: str = SAYS
) -> Candidate:
    """A candidate of phrases, the leading one first; those that add nothing are left out."""
    chosen = _chosen(phrases, texts)
    detector = Detector(SAYS, pattern(chosen))
    hit = tuple(detector.rows(texts.answers, texts.rows))
    name = " / ".join(_shown(phrase, texts) for phrase in chosen)
    return Candidate(name, dataclasses.replace(detector, kind=kind), score, hit)


def _shown(phrase: Phrase, texts: Texts) -> str:
    """A phrase in the form in which the answers have it most often: its words are stems."""
    places = texts.terms[phrase].places.items() if phrase in texts.terms else ()
    form = re.compile(pattern([phrase]), re.I)
    found = [form.match(texts.answers[row].text, at) for row, (_, at) in places]
    said = Counter(" ".join(WORD.findall(one[0].lower())) for one in found if one)
    return said.most_common(1)[0][0] if said else shown(phrase)


def _chosen(phrases: Sequence[Phrase], texts: Texts) -> list[Phrase]:
    """The lead, or what sharpens it, and others one by one while they add to the contrast."""

    longer = [p for p in phrases[1:12] if set(phrases[0]) < set(p)]
    chosen = [max([phrases[0], *longer], key=texts.contrast)]
    best = texts.contrast(*chosen)
    for phrase in phrases[:12]:
        if phrase not in chosen and len(chosen) < MOST_PHRASES and texts.precise(phrase):
            value = texts.contrast(*chosen, phrase)
            chosen, best = ([*chosen, phrase], value) if value > best + 0.2 else (chosen, best)
    return chosen
