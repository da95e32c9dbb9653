"""The area under the ROC curve, of rows and of twins."""

import warnings

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from scipy import stats

from tracekit.errors import InputError
from traits.statistics.effects import named, refuse_holes


def auroc(
    scores: xr.DataArray,
    label: str | xr.DataArray = "label",
    dim: str = "prompt",
    within: str | None = None,
) -> xr.DataArray:
    """The chance that a row labelled 1 scores higher than a row labelled 0; ties count a half.

    Reduces `dim` and keeps every other dim. `label` is a coordinate or an array over `dim`; with
    `within` (a coordinate, such as `bias`) it is the mean over strata that have both labels, so
    that what separates the strata is not counted; the attribute `strata` says how many. Raises
    ValueError for scores that are not finite or one label only, warns for constant scores.
    Source: the Mann-Whitney U statistic over n₁n₀.

    >>> scores = xr.DataArray([0.1, 0.4, 0.4, 0.9], dims="prompt")
    >>> auroc(scores, xr.DataArray([0, 0, 1, 1], dims="prompt")).item()
    0.875
    """
    scores = scores.compute()
    label = (scores[label] if isinstance(label, str) else label).compute()
    _check_scores(scores, label, dim)
    if within is None:
        return _area(scores, label, dim)
    strata = named(scores, within)
    names = list(dict.fromkeys(strata.tolist()))
    both = [name for name in names if len(np.unique(label.values[strata == name])) == 2]
    if not both:
        raise InputError(
            f"An AUROC within {within!r} needs strata with both labels, and none of {len(names)} "
            f"has them ({', '.join(map(str, names[:5]))}). Take more rows, or pool the strata."
        )
    rows = [np.flatnonzero(strata == name) for name in both]
    areas = [_area(scores.isel({dim: row}), label.isel({dim: row}), dim) for row in rows]
    mean = xr.concat(areas, dim="stratum", coords="minimal", compat="override").mean("stratum")
    return mean.assign_attrs(strata=f"{len(both)} of {len(names)}")


def paired_auroc(positive: xr.DataArray, negative: xr.DataArray, dim: str = "pair") -> xr.DataArray:
    """The AUROC of twins: every positive score against every negative one, over `dim`.

    Raises ValueError as `rank_differences` does.

    >>> positive = xr.DataArray([0.4, 0.9], dims="pair")
    >>> paired_auroc(positive, xr.DataArray([0.1, 0.4], dims="pair")).item()
    0.875
    """
    return 0.5 + rank_differences(positive, negative, dim).mean(dim)


def rank_auroc(
    positive: Float[np.ndarray, "*other positive"], negative: Float[np.ndarray, "*other negative"]
) -> Float[np.ndarray, "*other"] | np.float64:
    """`auroc` of the plain scores of both classes along the last axis, for loops over many draws.

    Raises ValueError for scores that are not finite.

    >>> rank_auroc(np.array([0.4, 0.9]), np.array([0.1, 0.4])).item()
    0.875
    """
    for side in (positive, negative):
        refuse_holes(side, "scores")
    label = np.repeat([1, 0], [positive.shape[-1], negative.shape[-1]])
    return label_auroc(np.concatenate([positive, negative], axis=-1), label)


def rank_differences(
    positive: xr.DataArray, negative: xr.DataArray, dim: str = "pair"
) -> xr.DataArray:
    """What each pair adds to the AUROC: its mean over `dim` is the AUROC minus a half.

    Exchanging the twins of a pair changes its sign and nothing else, so `sign_flip` on these is
    the permutation test of the AUROC. Twins are matched by the labels of `dim` where both sides
    have them, else by order. Raises ValueError for scores that are not finite, and for sides of
    other labels or sizes.

    >>> positive = xr.DataArray([0.4, 0.9], dims="pair")
    >>> rank_differences(positive, xr.DataArray([0.1, 0.4], dims="pair")).values.tolist()
    [0.375, 0.375]
    """
    positive, negative = positive.compute(), negative.compute()
    for side in (positive, negative):
        refuse_holes(side, "scores")
    negative = _matched(positive, negative, dim)
    ranks = xr.apply_ufunc(
        lambda *sides: stats.rankdata(np.concatenate(sides, axis=-1), axis=-1),
        *(side.drop_vars(dim, errors="ignore") for side in (positive, negative)),
        input_core_dims=[[dim], [dim]],
        output_core_dims=[["row"]],
    )
    count = positive.sizes[dim]
    above = ranks.isel(row=slice(None, count)) - ranks.isel(row=slice(count, None))
    made = (above / (2 * count)).rename(row=dim).transpose(*positive.dims)
    return made.assign_coords({dim: positive[dim]}) if dim in positive.coords else made


def _matched(positive: xr.DataArray, negative: xr.DataArray, dim: str) -> xr.DataArray:
    """The negative side in the order of its twins."""
    labels = [side[dim].values.tolist() for side in (positive, negative) if dim in side.coords]
    alone = [set(labels[0]) ^ set(labels[1])] if len(labels) == 2 else [set()]
    sizes = [side.sizes[dim] for side in (positive, negative)]
    if alone[0] or sizes[0] != sizes[1]:
        raise InputError(
            f"Twins are matched along {dim!r}, and {sizes[0]} positive scores and {sizes[1]} "
            f"negative ones were given, {len(alone[0])} labels being on one side only "
            f"({', '.join(map(repr, list(alone[0])[:5]))}). Give both sides of the same pairs."
        )
    if len(labels) < 2 or labels[0] == labels[1]:
        return negative
    if len(set(labels[0])) < len(labels[0]):
        raise InputError(
            f"Twins are matched along {dim!r}, whose {len(labels[0])} labels come in two orders "
            f"and name {len(set(labels[0]))} pairs. Give each pair a label of its own."
        )
    return negative.sel({dim: positive[dim].values})


def _area(scores: xr.DataArray, label: xr.DataArray, dim: str) -> xr.DataArray:
    area = xr.apply_ufunc(
        label_auroc, scores, label, input_core_dims=[[dim], [dim]], keep_attrs=False
    )
    return area.rename("auroc")


def label_auroc(
    scores: Float[np.ndarray, "*other row"], label: Shaped[np.ndarray, "row"]
) -> Float[np.ndarray, "*other"] | np.float64:
    """`auroc` of plain arrays along the last axis, whose labels (1 or 0) are both there.

    >>> label_auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])).item()
    0.875
    """
    positive = label == 1
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    ranks = stats.rankdata(scores, axis=-1)[..., positive].sum(axis=-1)
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def _check_scores(scores: xr.DataArray, label: xr.DataArray, dim: str) -> None:
    counts = [int((label == side).sum()) for side in (1, 0)]
    if min(counts) == 0 or sum(counts) != label.size:
        raise InputError(
            f"An AUROC needs rows labelled 1 and rows labelled 0 along {dim!r}, and found "
            f"{counts[0]} and {counts[1]} of {label.size}. Select rows that have both labels."
        )
    refuse_holes(scores, "scores")
    constant = int((scores.max(dim) == scores.min(dim)).sum())
    if constant:
        warnings.warn(
            f"The scores are constant along {dim!r} at {constant} of {scores.max(dim).size} "
            "places; their AUROC of 0.5 says nothing.",
            stacklevel=3,
        )
