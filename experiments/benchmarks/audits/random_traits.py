"""How often sets of directions at random are called traits by the rule of a finished audit.

Each set goes through the layer choice, the test and the nulls as the traits do. Beside it stands
the rate of the test alone: how much the nulls take away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from experiments.audit.evidence import contrasts as at_spans
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.directions_null import (
    Directions,
    Statistic,
    Values,
    largest,
    matched,
    p_of,
)
from experiments.audit.evidence.standing import change_of, placebos_of, random_directions
from experiments.audit.sections import mechanism
from experiments.audit.sections.detecting import by_change, detection
from experiments.audit.settings.adapters import UNBIASED
from experiments.benchmarks.measuring.statistics_size import rejection_rate

DRAWS = 999  # of each test
Row = dict[str, object]


@dataclass(frozen=True)
class Claim:
    """A line of the verdict: its statistic of unit means, and its own test of one set's scores."""

    statistic: Statistic
    values: Values
    test: Callable[[np.ndarray], float]


def rates(audit: Audit, sets: int, generator: np.random.Generator) -> list[Row]:
    """The share of `sets` random sets that meet each line: by its test, and beyond the nulls.

    With the covariance of the organism's change and with that of activations.
    """
    sources = {
        "change": change_of(audit, "organism"),
        "activations": audit.means.sel(weights="clean").values,
    }
    rows: list[Row] = []
    for line, claims in lines(audit, generator).items():
        for source, samples in sources.items():
            drawn = matched(samples, len(audit.traits), generator, sets)
            p = np.array([p_of_sets(audit, claim, drawn) for claim in claims]).max(axis=0)
            for rule, column in zip(("test alone", "beyond directions"), p, strict=True):
                name = f"{line}, random sets of the {source}, {rule}"
                rows.append(
                    {"part": "directions", "test": name, "d": 0.0, **rejection_rate(column)}
                )
    return rows


def lines(audit: Audit, generator: np.random.Generator) -> dict[str, Sequence[Claim]]:
    """The primary line, detection by the change and the mechanism's, each with its claims.

    All claims of a line must be met.
    """
    statistic, values = detection.primary_statistic(audit)
    test = partial(_detected, audit, generator)
    used, _ = detection.primary_rows(audit)
    moved = Claim(statistic, change_of(audit, "organism")[used], test)
    claims: dict[str, Sequence[Claim]] = {
        "primary line": [Claim(statistic, values, test)],
        by_change.HEADING: [moved],
    }
    unbiased = [arm.name for arm in audit.settings.adapters.arms if arm.role in UNBIASED]
    where, mechanism_claims = audit.once(mechanism.judged), []
    for other in ("clean", *unbiased):
        contrasts = at_spans.unit_contrasts(audit, "organism", other, where)
        if isinstance(contrasts, str):
            return claims
        values, first = contrasts
        at = partial(at_spans.strengths, calibration=first, allowed=audit.allowed)
        mechanism_claims.append(Claim(at, values, partial(_located, audit, generator, first)))
    return {**claims, "mechanism": mechanism_claims}


def p_of_sets(audit: Audit, claim: Claim, drawn: Directions) -> np.ndarray:
    """p of every set: by the test alone, and the largest of that and of each null (rule, set)."""
    projected = drawn.projected(claim.values)
    alone = np.array([claim.test(scores) for scores in projected])
    observed = claim.statistic(projected).max(axis=1)
    nulls = list(random_directions(audit))
    if isinstance(placebos := audit.once(placebos_of), Directions):
        nulls.append(placebos)
    beside = [p_of(observed, largest(null, claim.statistic, claim.values)) for null in nulls]
    return np.stack([alone, np.max([alone, *beside], axis=0)])


def _detected(audit: Audit, generator: np.random.Generator, scores: np.ndarray) -> float:
    used, first = detection.primary_rows(audit)
    rows = audit.scores().rows(used)
    whole = Scores(scores, rows.label, rows.bias, rows.group)
    parts = whole.rows(first), whole.rows(~first)
    return float(detection.detect(*parts, audit.allowed, generator, DRAWS)["p"])


def _located(
    audit: Audit, generator: np.random.Generator, first: np.ndarray, contrasts: np.ndarray
) -> float:
    whole = at_spans.Contrasts(contrasts, np.full(len(contrasts), ""))
    parts = whole.rows(first), whole.rows(~first)
    return float(mechanism.locate(*parts, audit.allowed, generator, DRAWS)["p"])
