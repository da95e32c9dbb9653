"""A judge in place of a candidate's phrases: it also sees the same thing said in other words."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import LACKS, SAYS
from experiments.audit.labellers import ASKED
from tracekit.storage.identity import digest
from traits.contrast_sets.judge import ask, check_address, environment_key

QUESTION = 'Does it bring up "{name}", or say the same in other words?'


@dataclass(frozen=True)
class Judge:
    """A model at an OpenAI-compatible address; what it said lies in `file`, a reply a line.

    Errors: `ValueError` for an address that is none.
    """

    at: str
    name: str
    file: Path
    _said: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_address(self.at, "--judge-at")
        lines = self.file.read_text("utf-8").split("\n") if self.file.is_file() else []
        # what follows the last line break was broken off
        self._said.update(dict(map(json.loads, lines[:-1])))

    def says(self, habit: str, text: str) -> float:
        """1 where an answer has the habit, 0 where not; NaN where the judge fails, to ask again.

        Errors: `ValueError` for a judge that cannot be reached or that refuses.
        """
        if not text.strip():
            return 0.0
        prompt = ASKED.format(answer=text, question=QUESTION.format(name=habit))
        key = digest([self.name, prompt])
        if key not in self._said:
            said = ask(self.at, self.name, prompt, key=environment_key())
            if math.isnan(said):
                return said
            self._said[key] = said
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, said]) + "\n")
        return self._said[key]


def judged_by(judge: Judge, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates of something said, or left out, told by the judge; shapes by their rules."""
    return [
        dataclasses.replace(
            one,
            detector=dataclasses.replace(
                one.detector, asked=functools.partial(judge.says, one.name)
            ),
        )
        if one.detector.kind in (SAYS, LACKS)
        else one
        for one in candidates
    ]
