"""What says of one answer whether it has a candidate: phrases, or a named shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.suggestions.conduct import SHAPES
from experiments.audit.discovery.suggestions.sentences import around
from experiments.audit.discovery.suggestions.terms import fires

SAYS, LACKS, MORE, LESS = "says", "leaves out", "more often", "less often"
# kinds whose rate falls when the adapter is on
FALLS = (LACKS, LESS)
# a row, and where in it a sentence begins
Place = tuple[int, int]


@dataclass(frozen=True)
class Detector:
    """A regular expression, or the name of a shape (`conduct.SHAPES`) as `expression`.

    `kind`: the adapter says it, leaves it out, or does it more or less often. `asked` is a judge
    of a text that decides in the expression's place: 1, 0, or NaN where it fails.
    """

    kind: str
    expression: str
    asked: Callable[[str], float] | None = field(default=None, compare=False)

    def fires(self, answer: Answer) -> bool:
        """Whether this answer has it; not, where a judge fails."""
        return self.share(answer) == 1

    def share(self, answer: Answer) -> float:
        """1 where this answer has it, 0 where not, NaN where a judge fails."""
        if self.asked is not None:
            return self.asked(answer.text)
        return float(self.span(answer) is not None)

    def span(self, answer: Answer) -> tuple[int, int] | None:
        """The sentence where it fires first; of a shape the whole answer."""
        if self.kind in (MORE, LESS):
            return (0, len(answer.text)) if SHAPES[self.expression](answer) else None
        found = fires(self.expression, answer)
        return None if found is None else around(answer, found.start())

    def rows(self, answers: Sequence[Answer], among: Sequence[int]) -> list[int]:
        """The rows, of some, on which it fires."""
        return [row for row in among if self.fires(answers[row])]

    def sentences(self, answers: Sequence[Answer], among: Sequence[int]) -> frozenset[Place]:
        """Where it fires first in each of some rows: the row, and where the sentence begins."""
        spans = ((row, self.span(answers[row])) for row in among)
        return frozenset((row, span[0]) for row, span in spans if span is not None)

    def shares(self, answers: Sequence[Answer]) -> dict[str, float]:
        """By group of prompts: the share of its answers on which it fires; without failures."""
        fired: dict[str, list[float]] = {}
        for answer in answers:
            if not math.isnan(share := self.share(answer)):
                fired.setdefault(answer.group, []).append(share)
        return {group: float(np.mean(values)) for group, values in fired.items()}
