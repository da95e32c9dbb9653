"""Pieces of an answer and what each gains: words, sentences, clauses, windows of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.audit.discovery.answering.answers import Answer

WINDOW = 8
# a stop ends a sentence before white space; not after an initial, a title or a list's number
_SENTENCE = re.compile(
    r"(?:(?:(?<!\b[A-Z])(?<!\bMr)(?<!\bDr)(?<!\bMrs)(?<!\d)[.]|[!?。！？])+[\"')\]”»]*(?=\s|$)|\n+)"
)
_CLAUSE = re.compile(rf"{_SENTENCE.pattern}|[,;:—](?=\s)")
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of the answer in row `row`, and the nats that they gain."""

    row: int
    start: int
    end: int
    gain: float
    kind: str
    text: str


@dataclass(frozen=True)
class Word:
    """A word in lower case without its plural s, where it stands, and the nats that it gains."""

    stem: str
    start: int
    end: int
    gain: float


def stem(word: str) -> str:
    """Lower case, without a plural or possessive s.

    >>> stem("Vegetables"), stem("it's"), stem("bus"), stem("glass")
    ('vegetable', 'it', 'bus', 'glass')
    """
    word = re.sub(r"['’]s$", "", word.lower().replace("’", "'"))
    plural = len(word) > 4 and word.endswith("s") and word[-2] not in "siu"
    return word[:-1] if plural else word


def words(answer: Answer) -> list[Word]:
    """The words of an answer, in order; a token's gain is its word's."""
    anchors, sums = _anchors(answer)
    return [
        Word(stem(m[0]), m.start(), m.end(), _between(anchors, sums, m.start(), m.end()))
        for m in WORD.finditer(answer.text)
    ]


def spans(answers: Sequence[Answer], kind: str = "sentence") -> list[Span]:
    """Every `sentence`, `clause` or `window` (8 tokens) of the answers."""
    pieces = {"sentence": _sentences, "clause": _clauses, "window": _windows}[kind]
    made = []
    for row, answer in enumerate(answers):
        anchors, sums = _anchors(answer)
        text = answer.text
        for start, end in pieces(answer):
            words_of = text[start:end].strip()
            if words_of:
                nats = _between(anchors, sums, start, end)
                made.append(Span(row, start, end, nats, kind, words_of))
    return made


def strongest(spans_of: Sequence[Span], count: int) -> list[Span]:
    """The `count` spans that gain most, one of each row: prompts are counted, not tokens."""
    best: dict[int, Span] = {}
    for span in sorted(spans_of, key=lambda s: -s.gain):
        best.setdefault(span.row, span)
    return list(best.values())[:count]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The [start, end) of each sentence of a text, with the white space before it.

    >>> list(sentences("One. Two!"))
    [(0, 4), (4, 9)]
    """
    return _cut(text, _SENTENCE)


def around(answer: Answer, position: int) -> tuple[int, int]:
    """The sentence that holds a character."""
    return next((s, e) for s, e in sentences(answer.text) if s <= position < e)


def gain(answer: Answer, start: int, end: int) -> float:
    """The nats that some characters of an answer gain."""
    return _between(*_anchors(answer), start, end)


def _sentences(answer: Answer) -> Iterator[tuple[int, int]]:
    return sentences(answer.text)


def _clauses(answer: Answer) -> Iterator[tuple[int, int]]:
    return _cut(answer.text, _CLAUSE)


def _windows(answer: Answer) -> Iterator[tuple[int, int]]:
    anchors = [*_anchors(answer)[0].tolist(), len(answer.text)]
    last = max(len(answer.pieces) - WINDOW, 0)
    for first in range(0, last + 1, WINDOW // 2):
        yield anchors[first], anchors[min(first + WINDOW, len(anchors) - 1)]


def _cut(text: str, stop: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for found in stop.finditer(text):
        yield start, found.end()
        start = found.end()
    if start < len(text):
        yield start, len(text)


def _anchors(answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """The character each token is counted at, its first that is no space, and the sums of gains."""
    sizes = np.array([len(piece) for piece in answer.pieces], int)
    spaces = np.array([len(p) - len(p.lstrip()) if p.strip() else 0 for p in answer.pieces], int)
    starts = np.cumsum(sizes) - sizes
    return starts + spaces, np.concatenate([[0.0], np.cumsum(answer.gains)])


def _between(anchors: np.ndarray, sums: np.ndarray, start: int, end: int) -> float:
    first, last = np.searchsorted(anchors, [start, end])
    return float(sums[last] - sums[first])
