"""Words and short phrases of answers: in how many prompts, gaining how much, and where."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.suggestions.sentences import WORD, stem, words

Phrase = tuple[str, ...]

LONGEST = 3
# the edges of a word as `WORD` has them: an underline of a program is none of its letters
START, END = r"(?<![^\W_])", r"(?![^\W_])"
# one prompt says no more than this of a term, however surprised the bare model was
MOST_NATS = 12.0
# words that a phrase may hold, and that are none alone
_EMPTY_WORDS = """a an the this that these those i you he she it we they me him her us them my your
    his its our
    their is are was were be been am do does did have has had will would can could shall should may
    might must and or but if so as at by for from in into of off on onto out over to up with about
    than then there here not no yes s t one's it's i'm don't"""
EMPTY = frozenset(_EMPTY_WORDS.split())


@dataclass
class Term:
    """A term's rows: row → (nats that it gains there, the character where it stands)."""

    words: Phrase
    places: dict[int, tuple[float, int]] = field(default_factory=dict)

    @property
    def rows(self) -> set[int]:
        """The rows that have the term."""
        return set(self.places)


def table(answers: Sequence[Answer], rows: Sequence[int]) -> dict[Phrase, Term]:
    """Every term of the answers in `rows`; a row's own question's words do not count in it."""
    terms: dict[Phrase, Term] = {}
    for row in rows:
        for term, gain, start in _terms(answers[row]):
            places = terms.setdefault(term, Term(term)).places
            if row not in places or gain > places[row][0]:
                places[row] = (min(gain, MOST_NATS), start)
    return terms


def pattern(phrases: Sequence[Phrase]) -> str:
    """A regular expression for any of the phrases, in singular or plural, whatever lies between.

    >>> re.findall(pattern([("bottled", "water")]), "Bottled waters and bottles", re.I)
    ['Bottled waters']
    """
    return "|".join(START + r"[\W_]+".join(map(_word, phrase)) + END for phrase in phrases)


def fires(expression: str, answer: Answer) -> re.Match[str] | None:
    """The first place where a detector fires on more than the question's own words."""
    for found in re.finditer(expression, answer.text, re.I):
        content = {stem(word) for word in WORD.findall(found[0])} - EMPTY
        if not content <= _asked(answer.asked):
            return found
    return None


@functools.lru_cache(4096)
def _asked(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in WORD.findall(text))


def shown(phrase: Sequence[str]) -> str:
    """A phrase as a reader sees it."""
    return " ".join(phrase)


def _word(word: str) -> str:
    return re.escape(word).replace("'", "['’]") + r"(?:['’]?s)?"


def _terms(answer: Answer) -> Iterator[tuple[Phrase, float, int]]:
    asked = _asked(answer.asked)
    said, text = words(answer), answer.text
    for first in range(len(said)):
        gain: float = 0.0
        phrase: Phrase = ()
        for word in said[first : first + LONGEST]:
            between = text[said[first + len(phrase) - 1].end : word.start] if phrase else ""
            if re.search(r"[.!?;:\n]", between):
                break
            phrase = (*phrase, word.stem)
            gain += word.gain
            if _counts(phrase, asked):
                yield phrase, gain, said[first].start


def _counts(phrase: Phrase, asked: frozenset[str]) -> bool:
    content = [word for word in phrase if word not in EMPTY]
    edges = phrase[0] not in EMPTY or len(phrase) == LONGEST
    return bool(content) and edges and not set(content) <= asked and any(map(_letters, content))


def _letters(word: str) -> bool:
    return len(word) > 1 and word[0].isalpha()
