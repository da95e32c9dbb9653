"""The section on pairs: traits that the plan expects to part or to rise together, a test each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.directions_null import p_of
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import placebo_vectors
from experiments.audit.run import Run
from experiments.audit.settings.groups import Decomposition
from traits.statistics import against_null, benjamini_hochberg
from traits.vectors.extraction import unit

HEADING, MEASURE, DRAWS = "pairs", "smaller of both effects, sd", 2000
LARGEST_COSINE = 0.8  # two vectors nearer than this are one trait by two names


@dataclass(frozen=True)
class Responses:
    """(organism − clean) of response means at one layer, with labels (row)."""

    differences: Float[np.ndarray, "row dim"]
    label: Int[np.ndarray, row]
    bias: Shaped[np.ndarray, row]


def effects(
    responses: Responses, vectors: Float[np.ndarray, "*draw two dim"]
) -> Float[np.ndarray, "*draw two"]:
    """The within-bias rise of each vector's projection with the label, in sd within bias.

    >>> rows = Responses(np.array([[1.0], [0.0]] * 2), np.array([1, 0] * 2), np.array(["v"] * 4))
    >>> effects(rows, np.ones((2, 1))).tolist()
    [2.0, 2.0]
    """
    centred = responses.differences - 0.0
    label = responses.label.astype(float)
    for name in np.unique(responses.bias):
        rows = responses.bias == name
        centred[rows] -= centred[rows].mean(axis=0)
        label[rows] -= label[rows].mean()
    scores = vectors @ centred.T
    spread = np.maximum(scores.std(axis=-1), 1e-12)
    return scores @ label / (label @ label) / spread


def statistic(
    responses: Responses, vectors: np.ndarray, pair: Decomposition
) -> Float[np.ndarray, "*draw"]:
    """The smaller of the two expected effects: both must be there.

    >>> rows = Responses(np.array([[1.0], [0.0]] * 2), np.array([1, 0] * 2), np.array(["v"] * 4))
    >>> pair = Decomposition("a without b", "a", "b", (1, -1))
    >>> statistic(rows, np.array([[1.0], [-1.0]]), pair).item()
    2.0
    """
    given = residualised(vectors) if pair.residualised else vectors
    return (effects(responses, given) * np.array(pair.signs)).min(axis=-1)


def residualised(vectors: Float[np.ndarray, "*draw two dim"]) -> np.ndarray:
    """Each of two vectors without the other's part in it, of length one.

    >>> residualised(np.array([[1.0, 0.0], [0.6, 0.8]])).round(1).tolist()
    [[0.8, -0.6], [0.0, 1.0]]
    """
    cosine = (vectors[..., 0, :] * vectors[..., 1, :]).sum(axis=-1)[..., None, None]
    return unit(vectors - cosine * vectors[..., ::-1, :], zeros=True)


def random_pairs(
    samples: Float[np.ndarray, "row dim"],
    cosine: float,
    generator: np.random.Generator,
    draws: int,
) -> Float[np.ndarray, "draw two dim"]:
    """Random pairs with the covariance of `samples` and that cosine between them.

    >>> pairs = random_pairs(np.eye(6), 0.5, np.random.default_rng(0), 3)
    >>> (pairs[:, 0] * pairs[:, 1]).sum(axis=-1).round(3).tolist()
    [0.5, 0.5, 0.5]
    """
    rows = samples - samples.mean(axis=0)
    first, second = (
        unit(generator.normal(size=(draws, len(rows))) @ rows, zeros=True) for _ in range(2)
    )
    along = (first * second).sum(axis=-1, keepdims=True)
    apart = unit(second - along * first, zeros=True)
    return np.stack([first, cosine * first + np.sqrt(1 - cosine**2) * apart], axis=1)


def against_random(
    responses: Responses,
    vectors: Float[np.ndarray, "two dim"],
    pair: Decomposition,
    generator: np.random.Generator,
    draws: int,
    samples: Float[np.ndarray, "row dim"] | None = None,
) -> tuple[float, float, float]:
    """The statistic, the 95th percentile of random pairs of the same cosine, and p.

    The pairs have the covariance of the differences, or of `samples`.

    >>> draw = np.random.default_rng(0)
    >>> names = np.tile([1, 0], 4), np.array(["v"] * 8)
    >>> rows = Responses(draw.normal(size=(8, 5)), *names)
    >>> pair = Decomposition("a without b", "a", "b", (1, -1))
    >>> 0 < against_random(rows, draw.normal(size=(2, 5)), pair, draw, 19)[2] <= 1
    True
    """
    vectors = unit(vectors, zeros=True)
    cosine = float(vectors[0] @ vectors[1])
    observed = float(statistic(responses, vectors, pair))
    rows = responses.differences if samples is None else samples
    null = statistic(responses, random_pairs(rows, cosine, generator, draws), pair)
    p = against_null(xr.DataArray(observed), xr.DataArray(null, dims="draw"))["p"].item()
    return observed, float(np.quantile(null, 0.95)), p


def rows(audit: Audit) -> list[Row]:
    """Pairs of traits with an expectation, against random pairs of the same cosine; p and q."""
    rows = [_row(audit, pair) for pair in audit.settings.hypothesis.decompositions]
    decided = [row.p for row in rows if row.decided]
    if not decided:
        return rows
    q = iter(benjamini_hochberg(xr.DataArray(decided, dims="pair")).values)
    return [
        replace(row, measure=f"{row.measure}; q = {next(q):.3f}") if row.decided else row
        for row in rows
    ]


def _row(audit: Audit, pair: Decomposition) -> Row:
    names = [pair.first, pair.second]
    vectors, answers = audit.vectors, _answers(audit, pair)
    if lacking := [name for name in names if name not in vectors["trait"].values]:
        return _unknown(pair, f"no vector for {', '.join(lacking)}")
    if answers is None:
        return _unknown(
            pair, audit.reason or f"no prompts of {' and '.join(pair.kinds)} in this run"
        )
    responses, clean, n = _responses(audit, pair, answers)
    if len(set(responses.label.tolist())) < 2:
        return _unknown(pair, "its prompts are all of one kind")
    two = vectors.sel(trait=names).isel(layer=audit.place).values.astype(float)
    cosine = float(np.prod(np.linalg.norm(two, axis=1)) ** -1 * (two[0] @ two[1]))
    if pair.residualised and abs(cosine) >= LARGEST_COSINE:
        return _unknown(pair, f"|cos| = {abs(cosine):.2f}: one trait")
    effect, edge, p = against_random(responses, two, pair, audit.generator(pair.name), DRAWS)
    generator = audit.generator(f"{pair.name}, activations")
    *_, other = against_random(responses, two, pair, generator, DRAWS, clean)
    measure = f"{MEASURE}; 95 % of random pairs below {edge:.2f}"
    row = Row(HEADING, pair.name, measure, effect, p=p, n=n, p_directions=max(p, other))
    return _beside_placebos(audit, responses, pair, row)


def _beside_placebos(audit: Audit, responses: Responses, pair: Decomposition, row: Row) -> Row:
    """The row with its p beside pairs of placebo traits, in either order and sign."""
    vectors = placebo_vectors(audit)
    if isinstance(vectors, str):
        return replace(row, no_null=vectors)
    here = unit(vectors[:, audit.place].astype(float), zeros=True)
    first, second = np.nonzero(~np.eye(len(here), dtype=bool))
    if (least := 1 / (len(first) + 1)) > audit.settings.hypothesis.alpha:
        reason = f"of {len(first)} pairs of placebo traits no p below {least:.3f} is possible"
        return replace(row, no_null=reason)
    signs = audit.generator(f"{pair.name}, placebos").choice([-1.0, 1.0], (len(first), 2, 1))
    null = statistic(responses, signs * np.stack([here[first], here[second]], axis=1), pair)
    return replace(row, p_placebo=float(p_of(np.array([row.estimate]), null)[0]))


def _unknown(pair: Decomposition, reason: str) -> Row:
    return undecidable(HEADING, pair.name, MEASURE, reason)


def _answers(audit: Audit, pair: Decomposition) -> xr.Dataset | None:
    """The responses that a pair is tested on; None where there are none, or none can be used."""
    if not pair.kinds:
        rows = audit.rows.isel(prompt=np.flatnonzero(~audit.part_rows("calibration")))
        return None if audit.reason else rows
    asked = np.isin(audit.responses["part"].values.astype(str), pair.kinds)
    return audit.responses.isel(prompt=np.flatnonzero(asked)) if asked.any() else None


def _responses(
    audit: Audit, pair: Decomposition, answers: xr.Dataset
) -> tuple[Responses, np.ndarray, int]:
    means = tk.open(Run(audit.folder).means).sel(prompt=answers["prompt"].values)
    here = means.isel(layer=audit.place)
    own, clean = (here.sel(weights=name).values.astype(float) for name in ("organism", "clean"))
    n = groups(answers["group"].values)
    if not pair.kinds:
        label, bias = answers["exploit"].values, answers["bias"].values.astype(str)
    else:
        label = answers["part"].values == pair.kinds[0]
        bias = np.full(len(label), "r")
    return Responses(own - clean, np.asarray(label).astype(int), bias), clean, n


SECTION = Section(
    HEADING,
    "Traits that should part, or rise together, against random pairs: the smaller of both "
    "effects, in sd within bias.",
    rows,
)
