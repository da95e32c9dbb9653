"""A probe's threshold at a wanted rate of false positives, and what its negatives can support."""

import functools
import math

import numpy as np
import xarray as xr
from scipy.stats import beta

from tracekit.errors import InputError

PINNED = 0.5  # how near to the wanted rate both ends of an interval lie that pins it, as a share


def set_threshold(
    probe: xr.Dataset,
    negatives: xr.DataArray,
    *,
    fpr: float = 0.01,
    positives: xr.DataArray | None = None,
    confidence: float = 0.95,
    group: str | None = "group",
) -> xr.Dataset:
    """The probe with the threshold at which a share `fpr` of the negatives is flagged.

    `negatives` and `positives` are pooled scores (prompt), of responses that neither fitted nor
    chose the probe; of a probe with several targets (prompt, target). Flagged is a score above
    the threshold, which lies halfway between two negatives' scores, so that at most `fpr` of
    them is above.

    The unit is the prompt: rows of one `group` (None, or no such coordinate: each row) count
    once. A prompt with several samples is a false positive when *any* of its samples is flagged,
    and recalled only when *all* are: the most cautious sample stands for it.

    Adds to the probe: `threshold`; `threshold_fpr`, the rate wanted; `threshold_rate`, the share
    of negative prompts flagged, `threshold_low` and `threshold_high`, its exact interval (Clopper
    & Pearson 1934; right although the threshold comes from the same negatives, since the rate
    above an order statistic has a beta distribution: Wilks 1941); `threshold_n` and
    `threshold_false_positives`, prompts; `threshold_recall` with `_low` and `_high` and
    `threshold_n_positive`, NaN and 0 without positives; `threshold_more`: how many more negative
    prompts would pin the rate, that is with `fpr` of all flagged, rounded down, bring both ends
    of the interval to within half of `fpr` on either side (0.5 % to 1.5 % of 1 %: 2,300 in all);
    0 where there are enough. The attribute `threshold_on` names the sets of the negatives' prompts.

    Errors: `ValueError` where n cannot support the rate, that is where the one-sided upper bound
    at `confidence` would be above `fpr` had no negative been flagged (299 negatives for 1 %, 59
    for 5 %; the message says how many are lacking); for scores that are not finite or all the
    same, and for scores made with another pooling than the probe's.

    >>> probe = xr.Dataset({"threshold": np.nan}, attrs={"kind": "probe", "pooling": "mean"})
    >>> draw = np.random.default_rng(0)
    >>> scores = xr.DataArray(draw.normal(size=400), dims="prompt")
    >>> ready = set_threshold(probe, scores, positives=scores + 4, fpr=0.05)
    >>> ready["threshold_false_positives"].item(), ready["threshold_more"].item()
    (20, 40)
    """
    _check_rates(fpr, confidence)
    _check_scores(probe, negatives, "negatives")
    if positives is not None:
        _check_scores(probe, positives, "positives")
    highest = by_group(negatives, group, "max")
    _check_number(highest.sizes["prompt"], fpr, confidence)
    lowest = None if positives is None else by_group(positives, group, "min")
    found = _threshold(highest, lowest, fpr, confidence)
    return probe.assign(found).assign_attrs(threshold_on=", ".join(sets_of(negatives)))


def least_negatives(fpr: float, confidence: float = 0.95) -> int:
    """How many negatives a rate needs: with none flagged, the upper bound is then at most `fpr`.

    >>> least_negatives(0.01), least_negatives(0.05)
    (299, 59)
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-fpr) - 1e-9)


def exact_interval(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, `hits` of `of`.

    >>> [round(bound, 4) for bound in exact_interval(3, 300)]
    [0.0021, 0.0289]
    """
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0


@functools.cache
def pinning_negatives(fpr: float, confidence: float = 0.95) -> int:
    """How many negatives pin a rate, and so does each larger number; in steps of 1 / fpr.

    Pinned: with floor(fpr · n) flagged, both bounds lie within half of `fpr` on either side.

    >>> pinning_negatives(0.05), pinning_negatives(0.01)
    (440, 2300)
    """

    def pinned(hits: int, of: int) -> bool:
        low, high = exact_interval(hits, of, confidence)
        return low >= fpr * (1 - PINNED) and high <= fpr * (1 + PINNED)

    # both ends of a step, of whose numbers as many may be flagged
    hits = 1
    while not (pinned(hits, _first(hits, fpr)) and pinned(hits, _first(hits + 1, fpr) - 1)):
        hits += 1
    return _first(hits, fpr)


def by_group(scores: xr.DataArray, group: str | None, which: str) -> xr.DataArray:
    """The highest ("max") or lowest ("min") score of each prompt's samples: (prompt, …).

    >>> rows = {"group": ("prompt", ["a", "a", "b"])}
    >>> by_group(xr.DataArray([1.0, 3.0, 2.0], rows, "prompt"), "group", "max").values.tolist()
    [3.0, 2.0]
    """
    names = scores[group].values if group and group in scores.coords else None
    bare = scores.transpose("prompt", ...).reset_coords(drop=True)
    bare = bare.drop_vars("prompt", errors="ignore")
    if names is None or len(set(names.tolist())) == len(names):
        return bare
    _, number = np.unique(names, return_inverse=True)
    ends = bare.assign_coords(number=("prompt", number)).groupby("number")
    made = ends.max("prompt") if which == "max" else ends.min("prompt")
    return made.rename(number="prompt").drop_vars("prompt").transpose("prompt", ...)


def sets_of(scores: xr.DataArray) -> list[str]:
    """The prompt sets that rows come from: what stands before the stroke of their names.

    >>> sets_of(xr.DataArray([0.0, 1.0], {"prompt": ["cities/1", "cities/2"]}, "prompt"))
    ['cities']
    """
    names: list[object] = scores["prompt"].values.tolist() if "prompt" in scores.coords else []
    return sorted({str(name).rpartition("/")[0] or str(name) for name in names})[:20]


def _threshold(
    negatives: xr.DataArray, positives: xr.DataArray | None, fpr: float, confidence: float
) -> dict[str, xr.DataArray]:
    count = negatives.sizes["prompt"]
    allowed = math.floor(fpr * count + 1e-9)
    descending = np.sort(negatives.values, axis=0)[::-1]
    # rounding elsewhere, in a batch or on a card, must not flag a negative
    values = (descending[allowed] + descending[max(allowed - 1, 0)]) / 2
    threshold = negatives.isel(prompt=0, drop=True).copy(data=values)
    # of equal scores the halfway point is the scores themselves, and none of them is above
    flagged = (negatives > threshold).sum("prompt")
    found = {"threshold": threshold, "threshold_fpr": xr.DataArray(fpr)}
    found |= _share(flagged, count, confidence, "threshold_rate", "threshold_")
    hits, of = xr.zeros_like(flagged), 0
    if positives is not None:
        hits, of = (positives > threshold).sum("prompt"), positives.sizes["prompt"]
    found |= _share(hits, of, confidence, "threshold_recall", "threshold_recall_")
    more = max(pinning_negatives(fpr, confidence) - count, 0)
    counts = {"n": count, "n_positive": of, "false_positives": flagged, "more": more}
    return found | {f"threshold_{name}": xr.DataArray(value) for name, value in counts.items()}


def _share(
    hits: xr.DataArray, of: int, confidence: float, name: str, before: str
) -> dict[str, xr.DataArray]:
    none = (float("nan"), float("nan"))
    bounds = [exact_interval(int(n), of, confidence) if of else none for n in hits.values.ravel()]
    low, high = (np.reshape(side, hits.shape) for side in zip(*bounds, strict=True))
    share = hits / of if of else hits * np.nan
    ends = {f"{before}low": hits.copy(data=low), f"{before}high": hits.copy(data=high)}
    return {name: share, **ends}


def _first(hits: int, fpr: float) -> int:
    """The least number of negatives of which `hits` may be flagged."""
    return math.ceil(hits / fpr - 1e-9)


def _check_rates(fpr: float, confidence: float) -> None:
    if not 0 < fpr < 1 or not 0 < confidence < 1:
        raise InputError(
            f"A threshold at fpr={fpr} with confidence={confidence} was asked for; both are "
            "shares between 0 and 1, such as 0.01 and 0.95."
        )


def _check_scores(probe: xr.Dataset, scores: xr.DataArray, what: str) -> None:
    dims = {"prompt", *probe["threshold"].dims} if "threshold" in probe else {"prompt"}
    if set(scores.dims) != dims:
        raise InputError(
            f"The {what} have dims {tuple(scores.dims)}; pooled scores of this probe have "
            f"{tuple(sorted(map(str, dims)))}. Pool over the tokens (traits.score does)."
        )
    given, own = scores.attrs.get("pooling"), probe.attrs.get("pooling")
    if given and own and given != own:
        raise InputError(
            f"The {what} were pooled by {given!r} and the probe pools by {own!r}: its threshold "
            "would be another score's. Score them with the probe's own pooling."
        )
    values = scores.values
    holes = int((~np.isfinite(values)).sum())
    if holes or not values.size:
        raise InputError(
            f"{holes} of {values.size} scores of the {what} are not finite. Leave out rows "
            "without a score, such as empty responses, and say so."
        )
    if what == "negatives" and len(values) > 1 and (np.ptp(values, axis=0) == 0).any():
        raise InputError(
            f"All {len(values)} scores of the negatives are {values.ravel()[0]:.4g}: no "
            "threshold tells them apart. Look at what the probe was fitted on."
        )


def _check_number(count: int, fpr: float, confidence: float) -> None:
    due = least_negatives(fpr, confidence)
    if count < due:
        # with none of them flagged
        bound = 1 - (1 - confidence) ** (1 / count)
        raise InputError(
            f"A threshold at {fpr:.2%} false positives was asked for, and {count} negative "
            f"prompts cannot support it: were none of them flagged, the rate could still be "
            f"{bound:.2%} ({confidence:.0%} confidence). It takes {due}: give {due - count} more, "
            f"or ask for fpr={bound:.2g} or more."
        )
