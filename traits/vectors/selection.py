"""Which method, window and layer: candidates, the best of them, and nulls chosen alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.errors import InputError
from traits.statistics import rank_auroc
from traits.vectors.extraction import unit
from traits.vectors.methods import METHODS, Method, fitted
from traits.vectors.nulls import matched_draws, shuffled_pairs
from traits.vectors.token_sides import TokenSide

PATH = ("extraction", "window", "layer")
Side = Float[np.ndarray, "_pair window layer dim"]
Sides = tuple[Side, Side]
# of means, or of tokens that are pooled once a candidate has read them
Scored = Sides | tuple[TokenSide, TokenSide]
Candidates = Float[np.ndarray, "method window layer dim"]
Scores = Float[np.ndarray, "method window layer pair"]


def fit_candidates(methods: Sequence[Method], sides: Sides) -> Candidates:
    """Unit vectors of every method at every window and layer.

    >>> draw = np.random.default_rng(0)
    >>> sides = draw.normal(size=(9, 1, 2, 3)), draw.normal(size=(9, 1, 2, 3))
    >>> fit_candidates([METHODS["mean_diff"]], sides).shape
    (1, 1, 2, 3)
    """
    shape = sides[0].shape[1:]
    # to a method a window is a further layer: one call, and so the same random draws for all
    positive, negative = (side.reshape(len(side), -1, shape[-1]) for side in sides)
    return np.stack([unit(fitted(method, positive, negative)).reshape(shape) for method in methods])


def candidate_scores(vectors: Candidates, sides: Scored) -> tuple[Scores, Scores]:
    """The projection of every pair onto every candidate, positive and negative side.

    >>> sides = np.ones((9, 1, 2, 3)), np.zeros((9, 1, 2, 3))
    >>> candidate_scores(np.ones((4, 1, 2, 3)), sides)[0].shape
    (4, 1, 2, 9)
    """
    positive, negative = (_scores(vectors, side) for side in sides)
    return positive, negative


def best_candidate(positive: Scores, negative: Scores) -> tuple[int, ...]:
    """The place (extraction, window, layer) of the highest AUROC; ties go by the paired effect.

    >>> positive, negative = np.zeros((2, 1, 1, 3, 8))
    >>> positive[0, 0, 1] += np.arange(8) + 1.0
    >>> positive[0, 0, 2] += np.arange(8) + 9.0
    >>> best_candidate(positive, negative)
    (0, 0, 2)
    """
    area = rank_auroc(positive, negative)
    difference = positive - negative
    spread = difference.std(axis=-1)
    effect = difference.mean(axis=-1) / np.where(spread > 0, spread, np.inf)
    best = np.where(area >= area.max() - 1e-12, effect, -np.inf)
    return tuple(int(index) for index in np.unravel_index(best.argmax(), best.shape))


def null_candidates(
    methods: Sequence[Method],
    fit: Sides,
    generator: np.random.Generator,
    draws: int,
    samples: Float[np.ndarray, "sample layer dim"] | None = None,
) -> dict[str, Iterator[Candidates]]:
    """Candidates that know nothing of the trait, `draws` of each kind of null.

    Shuffled pairs: every method, on the same randomly exchanged twins. Covariance-matched: one
    random direction a draw, in the covariance of `samples` or of the pairs themselves.

    >>> draw = np.random.default_rng(0)
    >>> fit = draw.normal(size=(9, 1, 2, 3)), draw.normal(size=(9, 1, 2, 3))
    >>> nulls = null_candidates(list(METHODS.values()), fit, draw, 5)
    >>> [next(null).shape for null in nulls.values()]
    [(4, 1, 2, 3), (1, 1, 2, 3)]
    """
    rows = None if samples is None else np.tile(samples, (1, fit[0].shape[1], 1))
    shape = fit[0].shape[1:]
    positive, negative = (side.reshape(len(side), -1, shape[-1]) for side in fit)
    matched = matched_draws(positive, negative, generator, draws, rows)
    return {
        "shuffled pairs": (
            fit_candidates(_exchanged(methods, generator), fit) for _ in range(draws)
        ),
        "covariance-matched": (unit(vector).reshape(1, *shape) for vector in matched),
    }


def oriented_candidates(vectors: Candidates, fit: Sides) -> Candidates:
    """Candidates, or minus them, so that the positive side of the fit pairs is higher.

    >>> fit = np.zeros((9, 1, 1, 2)), np.ones((9, 1, 1, 2))
    >>> oriented_candidates(np.ones((1, 1, 1, 2)), fit).ravel().tolist()
    [-1.0, -1.0]
    """
    difference = fit[0].mean(axis=0, dtype=np.float64) - fit[1].mean(axis=0, dtype=np.float64)
    along = (difference * vectors).sum(axis=-1, keepdims=True)
    return vectors * np.where(along < 0, -1.0, 1.0)


def placebo_candidates(placebos: xr.DataArray, side: xr.DataArray) -> list[Candidates]:
    """Vectors (trait, layer, dim) about nothing of interest, at the places that a side has.

    They may have `extraction` and `window` besides. Raises ValueError for layers or windows of
    `side` that they lack.

    >>> side = xr.DataArray(np.ones((9, 1, 1, 3)), dims=("pair", "window", "layer", "dim"))
    >>> side = side.assign_coords(window=["all"], layer=[12])
    >>> placebos = xr.DataArray(np.ones((5, 2, 3)), {"layer": [6, 12]}, ("trait", "layer", "dim"))
    >>> [placebo.shape for placebo in placebo_candidates(placebos, side)][:2]
    [(1, 1, 1, 3), (1, 1, 1, 3)]
    """
    given = placebos if PATH[0] in placebos.dims else placebos.expand_dims(PATH[0])
    if "window" not in given.dims:
        given = given.expand_dims(window=side["window"].values)
    for dim in PATH[1:]:
        wanted, there = side[dim].values, given[dim].values
        lacking = [label for label in wanted.tolist() if label not in there]
        if lacking:
            raise InputError(
                f"The placebos have the {dim}s {there.tolist()} and the traces {wanted.tolist()}: "
                f"no placebo for {lacking[:8]}. Extract those placebos too, or select traces "
                f"with .sel({dim}=…)."
            )
        given = given.sel({dim: wanted})
    return list(given.transpose("trait", *PATH, "dim").values)


def null_reports(vectors: Iterable[Candidates], select: Scored, report: Scored) -> xr.DataArray:
    """Report AUROCs of null candidates that went through the same selection: (draw, layer).

    Of each draw's candidates the best on `select` is kept. The values are the AUROCs on `report`
    of its method and window; the coordinate `chosen` is the one at its layer.
    """
    curves, chosen = [], []
    for candidates in vectors:
        method, window, layer = best_candidate(*candidate_scores(candidates, select))
        kept = candidates[method, window][None, None]
        seen = _of_window(report[0], window), _of_window(report[1], window)
        curves.append(np.asarray(rank_auroc(*candidate_scores(kept, seen)))[0, 0])
        chosen.append(curves[-1][layer])
    made = xr.DataArray(np.stack(curves), dims=("draw", "layer"))
    return made.assign_coords(chosen=("draw", chosen))


def named_methods(methods: Sequence[str] | Mapping[str, Method]) -> dict[str, Method]:
    """Methods by name: a list of names in METHODS, or the user's own mapping.

    >>> list(named_methods(["probe"]))
    ['probe']
    """
    if isinstance(methods, Mapping):
        return dict(methods)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(
            f"The methods {list(methods)} were asked for; there are {', '.join(METHODS)}. "
            "Give some of these, or a mapping of names to functions."
        )
    return {name: METHODS[name] for name in methods}


def _scores(vectors: Candidates, side: Side | TokenSide) -> Scores:
    if isinstance(side, TokenSide):
        return side.scores(vectors)
    along = np.moveaxis(side, 0, -2) @ np.moveaxis(vectors, 0, -1)
    return np.moveaxis(along, -1, 0).astype(np.float64)


def _of_window(side: Any, window: int) -> Any:
    return side.of_window(window) if isinstance(side, TokenSide) else side[:, [window]]


def _exchanged(methods: Sequence[Method], generator: np.random.Generator) -> list[Method]:
    seed = int(generator.integers(2**63))
    return [shuffled_pairs(method, generator=np.random.default_rng(seed)) for method in methods]
