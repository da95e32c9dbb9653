"""One layer for all traits at once: chosen apart from the fit, reported on a third part."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from traits.statistics import rank_auroc
from traits.vectors.methods import Method
from traits.vectors.selection import (
    Sides,
    candidate_scores,
    fit_candidates,
    null_candidates,
    oriented_candidates,
)
from traits.vectors.specificity import freed

FORMS = ("as fitted", "orthogonal")
MEASURES = ("auroc", "within pairs")
Vectors = Float[np.ndarray, "trait window layer dim"]


@dataclass(frozen=True)
class Parts:
    """One trait's pairs to fit on, to choose by and to report on, two sides each.

    A side has (pair, window, layer, dim); windows and layers are those of the other parts.
    """

    fit: Sides
    select: Sides
    report: Sides


def evaluate_jointly(
    parts: Mapping[str, Parts],
    method: Method,
    *,
    generator: np.random.Generator,
    axes: Float[np.ndarray, "axis window layer dim"] | None = None,
    placebos: Float[np.ndarray, "placebo window layer dim"] | None = None,
    draws: int = 99,
    resamples: int = 400,
) -> xr.Dataset:
    """How every trait's vector does at one window and layer, those with the best mean over traits.

    Vectors of all traits are fitted on `fit`; the window and layer of the highest mean AUROC over
    traits on `select` are taken for all; they are judged on `report`. In two forms: as fitted, and
    at a right angle to the other traits' vectors and `axes`, each with a choice of its own.

    Returns over `form` and `trait`: `estimate`, `low`, `high` by `measure` (AUROC, and that within
    pairs: the share of pairs in order, ties a half; 95 %, bootstrap over pairs), `vector` (dim) and
    `selected_window`, `selected_layer` (numbers of their places); and of nulls that went through
    the same choice, all traits together, `null_95`. They are `shuffled pairs`, `covariance-matched`
    (see `selection.null_candidates`) and with `placebos`, of which a draw gives each trait one,
    `placebo`; none where `draws` is 0.

    >>> draw = np.random.default_rng(0)
    >>> def some():
    ...     return draw.normal(size=(8, 1, 3, 12)), draw.normal(size=(8, 1, 3, 12))
    >>> parts = {name: Parts(some(), some(), some()) for name in ("mine/a", "mine/b")}
    >>> probe = traits.METHODS["probe"]
    >>> result = evaluate_jointly(parts, probe, generator=draw, draws=3, resamples=9)
    >>> result["estimate"].dims
    ('form', 'trait', 'measure')
    """
    axes = np.empty((0, *_shape(parts))) if axes is None else axes
    fitted = np.stack([fit_candidates([method], part.fit)[0] for part in parts.values()])
    chosen = []
    for form in FORMS:
        vectors = _in_form(fitted, form, axes)
        place = _place(vectors, parts)
        found = _reported(vectors[:, *place], parts, place, generator, resamples)
        chosen.append(found.assign(selected_window=place[0], selected_layer=place[1]))
    made = xr.concat(chosen, xr.Variable("form", np.array(FORMS)))
    if draws:
        rivals = _rivals(parts, method, generator, placebos, draws)
        bands = [_bands(rival, parts, axes) for rival in rivals.values()]
        made["null_95"] = xr.concat(bands, xr.Variable("null", np.array(list(rivals))))
    return made.assign_coords(trait=list(parts), measure=list(MEASURES))


def _shape(parts: Mapping[str, Parts]) -> tuple[int, ...]:
    return next(iter(parts.values())).fit[0].shape[1:]


def _in_form(vectors: Vectors, form: str, axes: np.ndarray) -> Vectors:
    if form == FORMS[0]:
        return vectors
    first_last = np.moveaxis(vectors, 0, -2), np.moveaxis(axes, 0, -2)
    return np.moveaxis(freed(*first_last), -2, 0)


def _place(vectors: Vectors, parts: Mapping[str, Parts]) -> tuple[int, int]:
    areas = [
        np.asarray(rank_auroc(*candidate_scores(vector[None], part.select)))[0]
        for vector, part in zip(vectors, parts.values(), strict=True)
    ]
    mean = np.mean(areas, axis=0)
    window, layer = np.unravel_index(mean.argmax(), mean.shape)
    return int(window), int(layer)


def _scores(
    vectors: Float[np.ndarray, "trait dim"], parts: Mapping[str, Parts], place: tuple[int, int]
) -> list[list[np.ndarray]]:
    return [
        [side[:, *place].astype(np.float64) @ vector for side in part.report]
        for vector, part in zip(vectors, parts.values(), strict=True)
    ]


def _measures(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    above = (np.sign(positive - negative) / 2 + 0.5).mean(axis=-1)
    return np.stack([np.asarray(rank_auroc(positive, negative)), above], axis=-1)


def _reported(
    vectors: Float[np.ndarray, "trait dim"],
    parts: Mapping[str, Parts],
    place: tuple[int, int],
    generator: np.random.Generator,
    resamples: int,
) -> xr.Dataset:
    values, bounds = [], []
    for positive, negative in _scores(vectors, parts, place):
        values.append(_measures(positive, negative))
        rows = generator.integers(len(positive), size=(resamples, len(positive)))
        bounds.append(
            np.quantile(_measures(positive[rows], negative[rows]), [0.025, 0.975], axis=0)
        )
    low, high = np.moveaxis(np.stack(bounds), 1, 0)
    measured = {"estimate": np.stack(values), "low": low, "high": high}
    made = {name: (("trait", "measure"), array) for name, array in measured.items()}
    return xr.Dataset({**made, "vector": (("trait", "dim"), vectors.astype(np.float32))})


def _rivals(
    parts: Mapping[str, Parts],
    method: Method,
    generator: np.random.Generator,
    placebos: np.ndarray | None,
    draws: int,
) -> dict[str, Iterator[Vectors]]:
    nulls = [null_candidates([method], part.fit, generator, draws) for part in parts.values()]
    rivals = {name: _together([null[name] for null in nulls]) for name in nulls[0]}
    if placebos is not None:
        rivals["placebo"] = _assigned(placebos, parts, generator, draws)
    return rivals


def _together(drawn: list[Iterator[np.ndarray]]) -> Iterator[Vectors]:
    for candidates in zip(*drawn, strict=True):
        yield np.stack([vectors[0] for vectors in candidates])


def _assigned(
    placebos: np.ndarray, parts: Mapping[str, Parts], generator: np.random.Generator, draws: int
) -> Iterator[Vectors]:
    for _ in range(draws):
        # without replacement while there are enough: equal vectors have no right angle
        order = generator.choice(len(placebos), len(parts), replace=len(placebos) < len(parts))
        rows = zip(order, parts.values(), strict=True)
        yield np.stack([oriented_candidates(placebos[n][None], part.fit)[0] for n, part in rows])


def _bands(rival: Iterator[Vectors], parts: Mapping[str, Parts], axes: np.ndarray) -> xr.DataArray:
    drawn: dict[str, list[np.ndarray]] = {form: [] for form in FORMS}
    for fitted in rival:
        for form in FORMS:
            vectors = _in_form(fitted, form, axes)
            place = _place(vectors, parts)
            scores = _scores(vectors[:, *place], parts, place)
            drawn[form].append(np.stack([_measures(*sides) for sides in scores]))
    bands = np.stack([np.quantile(rows, 0.95, axis=0) for rows in drawn.values()])
    return xr.DataArray(bands, dims=("form", "trait", "measure"))
