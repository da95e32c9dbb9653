"""Which confirmed findings are one habit in other words: those of the same sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments.audit.discovery.answering.settings import CLEAN
from experiments.audit.discovery.findings import Finding
from experiments.audit.discovery.search import Arms
from experiments.audit.discovery.suggestions.detectors import FALLS, LACKS, SAYS, Detector, Place

SHARE = 0.5


def joined(rows: Sequence[Finding], arms: Arms, name: str) -> list[Finding]:
    """The same; one that shares its sentences with a confirmed one before it names that one.

    More than half of the sentences of the one that has fewer, in all answers that there are. No
    test is made of it: it says how many habits the confirmed rows are.
    """
    first: list[tuple[Finding, frozenset[Place]]] = []
    labelled = []
    for row in rows:
        if row.is_confirmed and row.kind in (SAYS, LACKS):
            own = _sentences(row, arms, name)
            same = [one.title for one, s in first if one.kind == row.kind and _alike(own, s)]
            if same:
                row = dataclasses.replace(row, same_as=same[0])
            else:
                first.append((row, own))
        labelled.append(row)
    return labelled


def _alike(one: frozenset[Place], other: frozenset[Place]) -> bool:
    return len(one & other) > SHARE * min(len(one), len(other))


def _sentences(row: Finding, arms: Arms, name: str) -> frozenset[Place]:
    arm = CLEAN if row.kind in FALLS else name
    answers = [*arms.own[arm], *arms.further.get(arm, ())]
    if arm == name:
        louder = (loud.answer for loud in arms.louder.get(name, ()))
        answers += [*louder, *arms.loud.get(name, ())]
    return Detector(row.kind, row.expression).sentences(answers, range(len(answers)))
