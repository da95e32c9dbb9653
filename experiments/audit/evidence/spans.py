"""Where a response exploits, and the sentences of the same adapter that are most like it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

NATS, DECILES = 0.3, 1.0  # how far a match may be: a token, and in the tenths of its answer
MATCHES = SAME, OWN = "same answer", "own sentences"
STOPS = (".", "!", "?", "。", "！", "？")
CLOSING = "\"')]”»*"
Stretch = tuple[int, int]


@dataclass(frozen=True)
class Match:
    """A span of one row and its match in `beside`, as half-open places on the token axis."""

    row: int
    span: Stretch
    beside: int
    matched: Stretch


@dataclass(frozen=True)
class Answers:
    """Answers by token: what exploits, which tokens are the answer's own, where sentences end.

    `logprob` is the clean weights' log-probability in nats, NaN where there is none; `bare` marks
    the answers that carry no bias, and `part` says to which part of the prompts each belongs.
    """

    exploit: Bool[np.ndarray, "row token"]
    response: Bool[np.ndarray, "row token"]
    ends: Bool[np.ndarray, "row token"]
    logprob: Float[np.ndarray, "row token"]
    bare: Bool[np.ndarray, row]
    part: Shaped[np.ndarray, row]

    @property
    def spans(self) -> list[tuple[int, Stretch]]:
        """Every exploiting stretch, with its row."""
        return [
            (row, span)
            for row, marked in enumerate(self.exploit & self.response)
            for span in runs(marked)
        ]

    @property
    def free(self) -> list[tuple[int, Stretch]]:
        """Every whole sentence without an exploiting token, with its row."""
        return [
            (row, piece)
            for row in range(len(self.exploit))
            for piece in _sentences(self.response[row], self.ends[row])
            if not self.exploit[row, slice(*piece)].any()
        ]


def runs(marked: Bool[np.ndarray, token]) -> list[Stretch]:
    """The unbroken stretches that are marked, as (start, stop).

    >>> runs(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.r_[0, marked.astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def sentence_ends(texts: Shaped[np.ndarray, "row token"]) -> Bool[np.ndarray, "row token"]:
    """Which tokens end a sentence: a stop that is no list's number, or a line break.

    >>> sentence_ends(np.array([["1", ".", " Go", ".”", " On", "\\\\n"]])).tolist()
    [[False, False, False, True, False, True]]
    """
    words = np.char.strip(texts.astype(np.str_))
    ends = np.char.endswith(np.char.rstrip(words, CLOSING), STOPS[0])
    for stop in STOPS[1:]:
        ends |= np.char.endswith(np.char.rstrip(words, CLOSING), stop)
    numbered = np.char.isdigit(np.roll(words, 1, axis=1)) & (words == ".")
    return (ends & ~numbered) | (np.char.find(texts.astype(np.str_), "\\n") >= 0)


def matches(answers: Answers, where: str) -> list[Match]:
    """For each exploiting span the sentence that is like it; spans without one are left out.

    A match is a whole sentence without an exploiting token, within 0.3 nats a token of the span
    under the clean weights, and within one decile of its answer in where it begins: of the
    `SAME` answer, or of the adapter's `OWN` answers that carry no bias, to prompts of the same part
    or neutral ones, so that what chooses a layer does not report on it. The nearest pairs (both
    distances in units of what is allowed) come first, and no sentence serves twice, so that
    prompts stay apart.

    >>> marks, there = np.array([[0, 0, 0, 1], [0, 0, 0, 0]], bool), np.ones((2, 4), bool)
    >>> ends, likely = np.tile([False, True, True, True], (2, 1)), np.zeros((2, 4))
    >>> answers = Answers(marks, there, ends, likely, np.array([False, True]), np.array(["", ""]))
    >>> [match.matched for match in matches(answers, OWN)], matches(answers, SAME)
    ([(3, 4)], [])
    """
    spans, free = answers.spans, answers.free
    if not spans or not free:
        return []
    rows, beside = (np.array([row for row, _ in some]) for some in (spans, free))
    may = rows[:, None] == beside if where == SAME else _own(answers, rows, beside)
    one, other = _placed(answers, spans), _placed(answers, free)
    apart = np.abs(one[:, None] - other[None]) / np.array([DECILES, NATS])
    # an answer whose likelihood is not known is like no other: NaN is never within
    near = may & (apart <= 1 + 1e-9).all(axis=-1)
    taken = _nearest_first(np.where(near, apart.sum(axis=-1), np.inf))
    return [Match(*spans[a], *free[b]) for a, b in sorted(taken)]


def by_match(answers: Answers) -> dict[str, list[Match]]:
    """The matches of each kind (`MATCHES`).

    >>> marks = np.array([[False, False, False, True]])
    >>> row = np.array([False]), np.array(["held_out"])
    >>> answers = Answers(marks, ~marks | marks, marks, np.zeros((1, 4)), *row)
    >>> by_match(answers)
    {'same answer': [], 'own sentences': []}
    """
    return {where: matches(answers, where) for where in MATCHES}


def span_means(
    values: Float[np.ndarray, "row token layer trait"], pairs: list[Match]
) -> Float[np.ndarray, "row layer trait"]:
    """Means at spans minus means at their matches, by the span's row; NaN for rows without one.

    >>> values = np.arange(4.0).reshape(1, 4, 1, 1)
    >>> span_means(values, [Match(0, (3, 4), 0, (2, 3))]).item()
    1.0
    """
    sums = np.zeros((values.shape[0], *values.shape[2:]))
    counts = np.zeros(values.shape[0])
    for match in pairs:
        at = values[match.row, slice(*match.span)].mean(axis=0, dtype=np.float64)
        beside = values[match.beside, slice(*match.matched)].mean(axis=0, dtype=np.float64)
        sums[match.row] += at - beside
        counts[match.row] += 1
    with_match = np.where(counts > 0, counts, np.nan)
    return sums / with_match[:, None, None]


def quality(answers: Answers, found: dict[str, list[Match]]) -> xr.Dataset:
    """How many `spans` there are, and over `match` how many found one and how far these are.

    `matched` counts; `deciles` and `nats` (a token) are mean distances, span minus match, 0 where
    there is none.

    >>> marks = np.array([[False, False, False, True]])
    >>> rest = np.zeros((1, 4)), np.array([False]), np.array(["held_out"])
    >>> answers = Answers(marks, ~marks | marks, marks, *rest)
    >>> quality(answers, {SAME: []})["matched"].values.tolist()
    [0]
    """
    means = []
    for pairs in found.values():
        at = _placed(answers, [(match.row, match.span) for match in pairs])
        beside = _placed(answers, [(match.beside, match.matched) for match in pairs])
        means.append((at - beside).mean(axis=0) if pairs else np.zeros(2))
    counts = np.array([len(pairs) for pairs in found.values()], np.int32)
    columns = {"matched": counts, "deciles": np.array(means)[:, 0], "nats": np.array(means)[:, 1]}
    whole = xr.Dataset({name: ("match", values) for name, values in columns.items()})
    return whole.assign(spans=len(answers.spans)).assign_coords(match=list(found))


def _own(answers: Answers, rows: np.ndarray, beside: np.ndarray) -> Bool[np.ndarray, "span free"]:
    of, there = answers.part[rows][:, None], answers.part[beside]
    return answers.bare[beside] & ((of == there) | (there == "neutral"))


def _sentences(response: np.ndarray, ends: np.ndarray) -> Iterator[Stretch]:
    places = np.flatnonzero(response)
    first = 0
    for last in np.flatnonzero(ends[places]).tolist():
        yield int(places[first]), int(places[last]) + 1
        first = last + 1


def _placed(answers: Answers, some: list[tuple[int, Stretch]]) -> Float[np.ndarray, "stretch 2"]:
    """Where each stretch begins, in deciles of its answer, and its nats a token."""
    placed = np.empty((len(some), 2))
    for number, (row, (start, stop)) in enumerate(some):
        before, length = answers.response[row, :start].sum(), answers.response[row].sum()
        placed[number] = 10 * before / length, answers.logprob[row, start:stop].mean()
    return placed


def _nearest_first(apart: Float[np.ndarray, "span sentence"]) -> Iterator[tuple[int, int]]:
    used: tuple[set[int], set[int]] = (set(), set())
    order = np.argsort(apart, axis=None, kind="stable")[: int(np.isfinite(apart).sum())]
    for place in order.tolist():
        one, other = divmod(place, apart.shape[1])
        if one not in used[0] and other not in used[1]:
            used[0].add(one)
            used[1].add(other)
            yield one, other
