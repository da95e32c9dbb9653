"""Which rows are read together where what they begin with is read once, and what it computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int

from tracekit.passes import batching
from tracekit.passes.generating.shared_prompts import WORTHWHILE
from tracekit.storage.identity import digest
from tracekit.transcripts import tensors

# the least of a row is the last token of its prompt, which says its first
LAST = -1
# columns × rows of keys and values that a block holds at a time, as many times the budget
HELD = 4
# what a forward costs beside its tokens, as a share of the budget
FORWARD = 1 / 32


@dataclass(frozen=True)
class Plan:
    """Rows in batches, those of one prompt side by side, behind `common` tokens that all have."""

    batches: list[list[int]]
    common: int = 0


def plan(transcripts: xr.Dataset, budget: int) -> Plan | None:
    """Rows in batches, with what they begin with read once; None where that saves under an eighth.

    What all rows begin with is read once a capture. Behind it a batch computes the longest prompt
    for each distinct one, then the longest response for each row; either stays within `budget`,
    and keys and values of all rows within four times as many columns. A batch whose prompts would
    save little has its rows whole, within `budget`. Deterministic: of batches with what is common
    and without, of prompts by length, by that of their responses, and of rows by theirs, those
    that cost least, where a forward costs some tokens besides.
    """
    sizes, before = tensors.lengths(transcripts), own_prompts(transcripts)
    if before is None:
        return None
    rows_of = defaultdict(list)
    for row, prompt in enumerate(tensors.prompt_hashes(transcripts)):
        rows_of[prompt].append(row)
    ordinary = batching.plan(sizes.tolist(), budget)
    whole = int(sum(len(rows) * sizes[rows].max() for rows in ordinary))
    forward = FORWARD * min(budget, whole)
    best, least = None, whole + len(ordinary) * forward
    for common in sorted({0, _common(transcripts, int(before.min()))}):
        own, rest = (before - common).tolist(), (sizes - before).tolist()
        for batches in _Batches(own, rest, common, budget).ways(rows_of.values()):
            computed = common + sum(size.computed for _, size in batches)
            forwards = bool(common) + sum(1 + size.shares for _, size in batches)
            price = computed + forwards * forward
            if computed <= (1 - WORTHWHILE) * whole and price < least:
                best, least = Plan([rows for rows, _ in batches], common), price
    return best


def shortest(transcripts: xr.Dataset, share_prompts: bool) -> int:
    """The fewest tokens that are computed of a row: with prompts shared, those behind its own."""
    sizes = tensors.lengths(transcripts)
    if not share_prompts:
        return int(sizes.min())
    before = own_prompts(transcripts)
    return 1 if before is None else int((sizes - before).min())


def own_prompts(transcripts: xr.Dataset) -> Int[np.ndarray, " prompt"] | None:
    """How many tokens each row has before the last of its prompt; None where one has none.

    None too for transcripts that were cut, whose prompts are longer than what is there.
    """
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    asked = (real & (transcripts.token.values < 0)).sum(1)
    whole = (asked == transcripts.prompt_length.values).all()
    return asked + LAST if whole and (asked + LAST >= 1).all() else None


def described(budget: int, batches: Sequence[Sequence[int]], plan: Plan | None) -> dict[str, Any]:
    """The batches as provenance records them; of other ones, arrays are not compared.

    >>> behind = described(8, [[0]], Plan([[0]], common=24))
    >>> shared(behind), behind["common"], shared(described(8, [[0]], None))
    (True, 24, False)
    """
    if plan is None:
        return {"budget": budget, "plan": digest(batches)}
    said = {"prompts": "once", **({"common": plan.common} if plan.common else {})}
    # the digest is what is compared
    return {"budget": budget, "plan": digest([said, batches]), **said}


def shared(batches: Mapping[str, Any]) -> bool:
    """Whether batches that are `described` so read once what their rows begin with."""
    return batches.get("prompts") == "once"


def common_beginning(texts: Sequence[Int[np.ndarray, " _token"]], most: int) -> int:
    """How many tokens all texts begin with, up to `most`.

    >>> common_beginning([np.array([5, 6, 7]), np.array([5, 6, 9, 4])], most=3)
    2
    """
    least = min(most, *map(len, texts))
    heads = np.stack([text[:least] for text in texts])
    return int((heads == heads[0]).all(0).cumprod().sum())


def _common(transcripts: xr.Dataset, most: int) -> int:
    ids = transcripts.token_id.transpose("prompt", "token").values
    return common_beginning([row[row >= 0] for row in ids], most)


class _Size(NamedTuple):
    """Pieces (rows of one prompt) in numbers: how many, their longest, and what there is of them.

    Of each row there are the tokens `before` the last of its prompt, behind what is common to all,
    and those `after`.
    """

    pieces: int
    rows: int
    before: int
    after: int
    columns: int
    least: int  # before, of any row
    prompts: int  # tokens, once a piece
    rest: int  # tokens after
    whole: int  # tokens of the rows

    def joined(self, more: _Size, one_prompt: bool = False) -> _Size:
        """Both as one batch; rows of one prompt are one piece."""
        return _Size(
            1 if one_prompt else self.pieces + more.pieces,
            self.rows + more.rows,
            max(self.before, more.before),
            max(self.after, more.after),
            max(self.columns, more.columns),
            min(self.least, more.least),
            self.prompts if one_prompt else self.prompts + more.prompts,
            self.rest + more.rest,
            self.whole + more.whole,
        )

    @property
    def apart(self) -> int:
        """What is computed of prompts and of responses, in two forwards."""
        return self.pieces * self.before + self.rows * self.after

    @property
    def shares(self) -> bool:
        """Whether prompts are read apart: each has a token, and that saves an eighth."""
        return self.least > 0 and self.apart <= (1 - WORTHWHILE) * self.rows * self.columns

    @property
    def computed(self) -> int:
        return self.apart if self.shares else self.rows * self.columns

    @property
    def real(self) -> int:
        """Those of what is computed that are tokens."""
        return self.prompts + self.rest if self.shares else self.whole

    def fits(self, budget: int, common: int) -> bool:
        if self.rows * (common + self.columns) > HELD * budget:
            return False
        parts = (self.pieces * self.before, self.rows * self.after)
        return (max(parts) if self.shares else self.rows * self.columns) <= budget


Piece = tuple[list[int], _Size]


@dataclass(frozen=True)
class _Batches:
    """Batches of rows that have so many tokens before the last of their prompt, and from there."""

    before: Sequence[int]
    after: Sequence[int]
    common: int
    budget: int

    def ways(self, prompts: Iterable[Sequence[int]]) -> Iterator[list[Piece]]:
        """Batches of pieces: the rows of each prompt, or (last) each row a piece."""
        rows = range(len(self.before))
        ordered = (sorted(mine, key=lambda row: (-self.after[row], row)) for mine in prompts)
        parts = [part for mine in ordered for part in self._parts(mine)]
        yield self._filled(sorted(parts, key=lambda part: (-part[1].before, -part[1].after)))
        yield self._filled(sorted(parts, key=lambda part: (-part[1].after, -part[1].before)))
        yield self._filled(sorted(map(self._piece, rows), key=lambda part: -part[1].columns))

    def _piece(self, row: int) -> Piece:
        before, after = self.before[row], self.after[row]
        both = before + after
        return [row], _Size(1, 1, before, after, both, before, before, after, both)

    def _parts(self, rows: Sequence[int]) -> Iterator[Piece]:
        """The rows of a prompt in as many parts as they need."""
        part, size = self._piece(rows[0])
        for row in rows[1:]:
            one, alone = self._piece(row)
            joined = size.joined(alone, one_prompt=True)
            if joined.fits(self.budget, self.common):
                part, size = part + one, joined
            else:
                yield part, size
                part, size = one, alone
        yield part, size

    def _filled(self, pieces: Iterable[Piece]) -> list[Piece]:
        batches: list[Piece] = []
        for rows, size in pieces:
            joined = batches[-1][1].joined(size) if batches else size
            near = joined.real >= batching.ALIKE * joined.computed
            near = near or joined.computed < self.budget * batching.WORTHWHILE
            if batches and near and joined.fits(self.budget, self.common):
                batches[-1][0].extend(rows)
                batches[-1] = batches[-1][0], joined
            else:
                batches.append(([*rows], size))
        return batches
