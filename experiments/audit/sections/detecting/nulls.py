"""The section on nulls: directions that know nothing, through the same choices as the traits' own.

A response's mean cosine with any direction is the dot product with the mean of its residuals
scaled to length one, so that one saved array (prompt, layer, dim) serves every direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, choose, composite_auroc
from experiments.audit.evidence.directions_null import Values, projections
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import unreadable
from experiments.audit.evidence.trait_vectors import chosen_window, fitted_traces
from experiments.audit.run import Run
from experiments.audit.sections.detecting.competitors import trait_score_auroc
from traits import pairs
from traits.statistics import against_null
from traits.vectors.extraction import unit
from traits.vectors.methods import Pairs
from traits.vectors.nulls import AT_ONCE, matched_draws

HEADING, PLACEBOS = "nulls", "placebo traits"
Directions = Float[np.ndarray, "trait layer dim"]


def null_areas(
    means: Values,
    rows: Scores,
    calibration: np.ndarray,
    allowed: np.ndarray,
    directions: Iterable[Directions],
) -> Float[np.ndarray, draw]:
    """The held-out composite AUROC of each draw of directions, chosen like the traits' own.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["v"] * 8), np.arange(8)
    >>> rows = Scores(np.zeros((8, 3, 1)), np.tile([1, 0], 4), *names)
    >>> means = draw.normal(size=(8, 3, 5))
    >>> null = (draw.normal(size=(2, 3, 5)) for _ in range(4))
    >>> null_areas(means, rows, np.arange(8) < 4, np.arange(3), null).shape
    (4,)
    """
    areas = []
    vectors = (unit(draw, zeros=True) for draw in directions)
    for values in projections(means, vectors, allowed):
        scores = Scores(values, rows.label, rows.bias, rows.group)
        choice = choose(scores.rows(calibration), allowed)
        areas.append(composite_auroc(scores.rows(~calibration), choice))
    return np.array(areas)


def matched_directions(
    differences: Float[np.ndarray, "row layer dim"],
    traits: int,
    generator: np.random.Generator,
    draws: int,
) -> Iterator[Directions]:
    """Sets of `traits` random directions in the covariance of organism − clean differences.

    >>> differences = np.random.default_rng(0).normal(size=(9, 3, 5))
    >>> next(matched_directions(differences, 2, np.random.default_rng(0), 1)).shape
    (2, 3, 5)
    """
    drawn = matched_draws(differences, differences, generator, draws * traits, differences)
    for _ in range(draws):
        yield np.stack([*itertools.islice(drawn, traits)])


def shuffled_directions(
    pairs: list[tuple[Pairs, Pairs]], generator: np.random.Generator, draws: int
) -> Iterator[Directions]:
    """Each trait's mean difference on its own pairs with the twins exchanged at random.

    >>> pairs = [(np.ones((4, 3, 5)), np.zeros((4, 3, 5)))]
    >>> next(shuffled_directions(pairs, np.random.default_rng(0), 1)).shape
    (1, 3, 5)
    """
    apart = [(up - down).reshape(len(up), -1) for up, down in pairs]
    for start in range(0, draws, AT_ONCE):
        here = range(min(AT_ONCE, draws - start))
        # what `shuffled_pairs` of a mean difference draws
        swaps = [[generator.integers(0, 2, size=len(one)) for one in apart] for _ in here]
        signs = [1.0 - 2.0 * np.array(swap) for swap in zip(*swaps, strict=True)]
        made = [by @ one / len(one) for by, one in zip(signs, apart, strict=True)]
        yield from np.stack(made, 1).reshape(len(here), len(pairs), *pairs[0][0].shape[1:])


def placebo_directions(
    vectors: Directions, traits: int, generator: np.random.Generator, draws: int
) -> Iterator[Directions]:
    """Sets of `traits` placebo traits drawn without replacement.

    >>> next(placebo_directions(np.ones((4, 3, 5)), 2, np.random.default_rng(0), 1)).shape
    (2, 3, 5)
    """
    for _ in range(draws):
        yield vectors[generator.choice(len(vectors), traits, replace=False)]


def rows(audit: Audit) -> list[Row]:
    """The trait score's AUROC beside each null, sent through the same selection."""
    if audit.reason:
        return [undecidable(HEADING, "all nulls", "AUROC", audit.reason)]
    if reason := unreadable(audit):
        return [undecidable(HEADING, "all nulls", "AUROC", reason)]
    directions = _directions(audit)
    rows = [_row(audit, name, draws) for name, draws in directions.items()]
    if PLACEBOS not in directions:
        reason = "no placebo contrast sets were captured in this run"
        rows.append(undecidable(HEADING, PLACEBOS, "AUROC", reason))
    return rows


def _row(audit: Audit, what: str, directions: Iterable[Directions]) -> Row:
    own, scores = audit.readable, audit.scores()
    calibration = audit.part("calibration")
    used = calibration | audit.part("held_out")
    areas = null_areas(own[used], scores.rows(used), calibration[used], audit.allowed, directions)
    observed = xr.DataArray(audit.once(trait_score_auroc))
    p = against_null(observed, xr.DataArray(areas, dims="draw"))["p"].item()
    low, high = np.quantile(areas, [0.025, 0.975]).tolist()
    measure = f"AUROC of {len(areas)} draws, p of the trait score"
    return Row(HEADING, what, measure, float(np.median(areas)), low, high, p, groups(scores.group))


def _directions(audit: Audit) -> dict[str, Iterator[Directions]]:
    draws, count = audit.settings.null.directions, len(audit.traits)
    means = audit.means
    moved = (means.sel(weights="organism") - means.sel(weights="clean")).values.astype(float)
    twins = [pairs(fitted_traces(audit, trait)) for trait in audit.traits]
    sides = [(up.values.astype(float), down.values.astype(float)) for up, down in twins]
    matched = matched_directions(moved, count, audit.generator("covariance"), draws)
    shuffled = shuffled_directions(sides, audit.generator("shuffled"), draws)
    directions = {"covariance-matched directions": matched, "shuffled pairs": shuffled}
    path = Run(audit.folder).placebos
    if path.is_file():
        window = chosen_window(audit, audit.traits[0])
        placebos = tk.open(path).sel(extraction=audit.settings.vectors.method, window=window)
        vectors = unit(placebos.transpose("trait", "layer", "dim").values, zeros=True)
        generator = audit.generator("placebo")
        directions[PLACEBOS] = placebo_directions(vectors, count, generator, draws)
    return directions


SECTION = Section(
    HEADING,
    "Directions that know nothing, sent through the same choices: their median AUROC and 95 % of "
    "draws.",
    rows,
)
