"""Which answers show a finding: three that are typical of all that have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.findings import AMPLIFIED, Example, Finding
from experiments.audit.discovery.search import Arms, Louder
from experiments.audit.discovery.suggestions.detectors import FALLS, LACKS, SAYS, Detector
from experiments.audit.discovery.suggestions.sentences import WORD, gain, stem


def illustrated(finding: Finding, arms: Arms, name: str, most: int = 3) -> Finding:
    """The finding with the answers whose marked sentences have most words in common with the rest.

    What recurs is the habit: the sentence that gains most is often the oddest. Of a shape, whose
    mark is the whole answer, those that gain most. Of what is confirmed amplified alone, the
    amplified answers, of the least strength that has `most`: it is there that it was confirmed,
    while at its own strength the phrases may be all that is left of it, and at the greatest little
    but them.
    """
    detector, falls = Detector(finding.kind, finding.expression), finding.kind in FALLS
    answers = arms.own[CLEAN] if falls else arms.own[name]
    if falls and name in arms.on_clean:
        answers = arms.on_clean[name]
    beside = arms.own[name] if falls else arms.own[CLEAN]
    made = _examples(detector, [Louder(row, 1.0, a) for row, a in enumerate(answers)], beside)
    if not falls and (finding.verdict == AMPLIFIED or not made):
        made = _weakest(_examples(detector, arms.louder.get(name, ()), beside), most) or made
    made.sort(key=lambda example: example.gain if falls else -example.gain)
    if finding.kind in (SAYS, LACKS):
        made = [made[n] for n in typical([one.text[one.start : one.end] for one in made])]
    half = arms.own[CLEAN if falls else name]
    where = tuple(half[row].prompt for row in detector.rows(half, arms.rows(False)))
    return dataclasses.replace(finding, examples=tuple(made[:most]), prompts=where)


def typical(sentences: Sequence[str]) -> list[int]:
    """Sentences in order of their mean overlap in words (Jaccard's) with the others.

    >>> typical(["A cat sat.", "Rain falls.", "A cat sat down.", "The cat sat."])
    [0, 2, 3, 1]
    """
    said = [{stem(word) for word in WORD.findall(text)} for text in sentences]
    shares = np.array([[len(a & b) / max(len(a | b), 1) for b in said] for a in said])
    return np.argsort(-shares.sum(axis=-1), kind="stable").tolist() if said else []


def _weakest(made: list[Example], most: int) -> list[Example]:
    """The examples of the least strength that has `most` of them; all, where none has."""
    for scale in sorted({one.scale for one in made}):
        if len(some := [one for one in made if one.scale == scale]) >= most:
            return some
    return made


def _examples(
    detector: Detector, said: Sequence[Louder], beside: Sequence[Answer]
) -> list[Example]:
    made = []
    for one in said:
        answer = one.answer
        if (span := detector.span(answer)) is not None:
            nats, other = gain(answer, *span), beside[one.row].text
            about = answer.prompt, answer.asked, answer.text
            made.append(Example(*about, *span, nats, one.scale, other))
    return made
