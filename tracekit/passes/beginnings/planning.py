"""Which rows are read together where what they begin with is read once, and what it computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    most = (1 - WORTHWHILE) * sum(
        len(rows) * sizes[rows].max() for rows in batching.plan(sizes.tolist(), budget)
    )
    best, least = None, np.inf
    for common in sorted({0, _common(transcripts, int(before.min()))}):
        made = _Batches(before - common, sizes - before, common, budget)
        for batches in made.ways([*rows_of.values()]):
            computed = common + sum(made.cost(batch).computed for batch in batches)
            price = computed + (len(batches) + bool(common)) * FORWARD * budget
            if computed <= most and price < least:
                rows = [[row for part in batch for row in part] for batch in batches]
                best, least = Plan(rows, common), price
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
    once = {"budget": budget, "plan": digest(["prompts once", batches]), "prompts": "once"}
    return {**once, "common": plan.common} if plan.common else once


def shared(batches: Mapping[str, Any]) -> bool:
    """Whether batches that are `described` so read once what their rows begin with."""
    return batches.get("prompts") == "once"


def common_beginning(texts: Sequence[Int[np.ndarray, " _token"]], most: int) -> int:
    """How many tokens all texts begin with, up to `most`.

    >>> common_beginning([np.array([5, 6, 7]), np.array([5, 6, 9, 4])], most=3)
    2
    """
    heads = np.stack([text[: min(most, *map(len, texts))] for text in texts])
    return int((heads == heads[0]).all(0).cumprod().sum())


def _common(transcripts: xr.Dataset, most: int) -> int:
    ids = transcripts.token_id.transpose("prompt", "token").values
    return common_beginning([row[row >= 0] for row in ids], most)


@dataclass(frozen=True)
class _Cost:
    """What a batch of prompts' rows computes: prompts, responses, or whole rows; what is held."""

    prompts: int
    responses: int
    whole: int
    held: int
    apart: bool  # each prompt has a token

    @property
    def shares(self) -> bool:
        return self.apart and self.prompts + self.responses <= (1 - WORTHWHILE) * self.whole

    @property
    def computed(self) -> int:
        return self.prompts + self.responses if self.shares else self.whole

    def fits(self, budget: int) -> bool:
        if self.held > HELD * budget:
            return False
        return (max(self.prompts, self.responses) if self.shares else self.whole) <= budget


@dataclass(frozen=True)
class _Batches:
    """Batches of pieces (rows of one prompt) with so many tokens before and after its last."""

    before: np.ndarray
    after: np.ndarray
    common: int
    budget: int

    def cost(self, pieces: Sequence[list[int]]) -> _Cost:
        rows = [row for part in pieces for row in part]
        wide, long = int(self.before[rows].max()), int(self.after[rows].max())
        columns = int((self.before + self.after)[rows].max())
        return _Cost(
            prompts=len(pieces) * wide,
            responses=len(rows) * long,
            whole=len(rows) * columns,
            held=len(rows) * (self.common + columns),
            apart=bool(self.before[rows].min()),
        )

    def ways(self, prompts: Sequence[list[int]]) -> Iterator[list[list[list[int]]]]:
        """Batches of pieces: the rows of each prompt, or (last) each row a piece."""
        before, after = self.before, self.after
        ordered = (sorted(rows, key=lambda row: (-after[row], row)) for rows in prompts)
        parts = [part for rows in ordered for part in self.parts(rows)]
        for main, other in ((before, after), (after, before)):
            yield self.filled(
                sorted(parts, key=lambda rows: (-main[rows].max(), -other[rows].max()))
            )
        yield self.filled([row] for row in np.argsort(-(before + after), kind="stable").tolist())

    def parts(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """The rows of a prompt in as many parts as they need."""
        part: list[int] = []
        for row in rows:
            if part and not self.cost([[*part, row]]).fits(self.budget):
                yield part
                part = []
            part.append(row)
        yield part

    def filled(self, pieces: Iterable[list[int]]) -> list[list[list[int]]]:
        batches: list[list[list[int]]] = []
        for rows in pieces:
            joined = [*batches[-1], rows] if batches else [rows]
            cost = self.cost(joined)
            prompts = sum(self.before[part[: 1 if cost.shares else None]].sum() for part in joined)
            real = prompts + sum(self.after[part].sum() for part in joined)
            near = real >= batching.ALIKE * cost.computed
            near = near or cost.computed < self.budget * batching.WORTHWHILE
            if batches and cost.fits(self.budget) and near:
                batches[-1] = joined
            else:
                batches.append([rows])
        return batches
