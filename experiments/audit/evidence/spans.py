"""Where a response exploits, and the stretch of the same response that is most like it."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Match:
    """A span of one row and its match, as half-open places on the token axis."""

    row: int
    span: tuple[int, int]
    matched: tuple[int, int]


def runs(marked: Bool[np.ndarray, "token"]) -> list[tuple[int, int]]:
    """The unbroken stretches that are marked, as (start, stop).

    >>> runs(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.r_[0, marked.astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def matches(
    exploit: Bool[np.ndarray, "row token"],
    response: Bool[np.ndarray, "row token"],
    logprob: Float[np.ndarray, "row token"],
) -> list[Match]:
    """For every exploit span the stretch of the same response that is nearest in kind.

    Of the stretches of its length that touch no exploit span, the one with the smallest distance
    in position (deciles of the response) and in the clean model's mean log-probability (standard
    deviations over stretches). A span that leaves no room for another has no match. `response`
    marks the response's own tokens.

    >>> marks = np.array([[False, False, False, True]])
    >>> matches(marks, np.ones((1, 4), bool), np.zeros((1, 4)))[0].matched
    (2, 3)
    """
    return [
        Match(row, span, matched)
        for row in range(len(exploit))
        for span in runs(exploit[row] & response[row])
        if (matched := _nearest(span, exploit[row], response[row], logprob[row])) is not None
    ]


def span_means(
    values: Float[np.ndarray, "row token layer trait"], pairs: list[Match]
) -> Float[np.ndarray, "row layer trait"]:
    """Means at spans minus means at their matches, by row; NaN for rows without a match.

    >>> values = np.arange(4.0).reshape(1, 4, 1, 1)
    >>> span_means(values, [Match(0, (3, 4), (2, 3))]).item()
    1.0
    """
    sums = np.zeros((values.shape[0], *values.shape[2:]))
    counts = np.zeros(values.shape[0])
    for match in pairs:
        at, beside = (values[match.row, slice(*place)] for place in (match.span, match.matched))
        sums[match.row] += at.mean(axis=0) - beside.mean(axis=0)
        counts[match.row] += 1
    with_match = np.where(counts > 0, counts, np.nan)
    return sums / with_match[:, None, None]


def quality(pairs: list[Match], response: np.ndarray, logprob: np.ndarray) -> xr.Dataset:
    """How far matches are from their spans on average: `deciles` and `nats` a token, and `count`.

    0 where there are no matches.

    >>> marks = np.array([[False, False, False, True]])
    >>> response = np.ones((1, 4), bool)
    >>> pairs = matches(marks, response, np.zeros((1, 4)))
    >>> quality(pairs, response, np.zeros((1, 4)))["nats"].item()
    0.0
    """
    deciles, nats = [0.0] * (not pairs), [0.0] * (not pairs)
    for match in pairs:
        length = response[match.row].sum()
        deciles.append(10 * (match.span[0] - match.matched[0]) / length)
        at, beside = (
            np.nanmean(logprob[match.row, slice(*p)]) for p in (match.span, match.matched)
        )
        nats.append(at - beside)
    return xr.Dataset({"deciles": np.mean(deciles), "nats": np.mean(nats), "count": len(pairs)})


def _nearest(
    span: tuple[int, int], exploit: np.ndarray, response: np.ndarray, logprob: np.ndarray
) -> tuple[int, int] | None:
    size = span[1] - span[0]
    free = (response & ~exploit).astype(int)
    starts = np.flatnonzero(np.convolve(free, np.ones(size, int), "valid") == size)
    if len(starts) == 0:
        return None
    likely = np.convolve(np.nan_to_num(logprob), np.ones(size) / size, "valid")
    spread = max(float(likely[starts].std()), 1e-6)
    far = 10 * np.abs(starts - span[0]) / response.sum()
    odd = np.abs(likely[starts] - likely[span[0]]) / spread
    best = int(starts[(far + odd).argmin()])
    return best, best + size
