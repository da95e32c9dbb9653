"""A forward of responses alone, behind prompts that are each read once, however many say more."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from tracekit.model.checks.probe import probe
from tracekit.model.record import origin
from tracekit.model.sites import first
from tracekit.model.threads import one_at_a_time
from tracekit.passes import batching
from tracekit.passes.generating.shared_prompts import (
    WORTHWHILE,
    distinct,
    plain_positions,
    read_apart,
    takes_cache,
)
from tracekit.passes.generating.stepping import crossed
from tracekit.storage.identity import digest
from tracekit.transcripts import tensors
from tracekit.transcripts.padded import Batch

PROVED, REFUSED = "prompts once", "prompts each"
# parts of a residual's norm by which it may differ
ALIKE, ALIKE_ROUNDED = 1e-4, 0.1
# the least of a response is the last token of its prompt, which says its first
BEGINNING = -1
# columns × rows of keys and values that a block holds at a time, as many times the budget
HELD = 4


class Repeated(DynamicLayer):
    """Keys and values of a few texts, for the many rows that begin with one; none grow here.

    `row_of` says which text each row begins with. What a layer is given is joined to them and
    handed back, and only the few texts stay in memory.
    """

    row_of: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The texts' keys and values in front of those given: (row, head, column, width)."""
        if self.row_of is None or self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        of = self.row_of
        pairs = ((self.keys, key_states), (self.values, value_states))
        keys, values = (torch.cat([before[of], new], -2) for before, new in pairs)
        return keys, values


def may_share(model: TransformersModel) -> bool:
    """Whether it reads on behind keys and values as in a whole forward; proved once a model.

    Not where edits read the prompt (they are told which rows they see), of a remote model, and of
    one whose rows go one by one.

    >>> may_share(model)
    True
    """
    about = origin(model)
    if "padding" in about.refused or not takes_cache(model) or not plain_positions(model):
        return False
    with one_at_a_time():
        if not {PROVED, REFUSED} & about.proved:
            about.proved.add(PROVED if _same(about.root) else REFUSED)
        return PROVED in about.proved


def plan(transcripts: xr.Dataset, budget: int) -> list[list[int]] | None:
    """Rows in batches, those of one prompt side by side; None where it saves less than an eighth.

    A batch computes the longest prompt for each distinct one, then the longest response for each
    row; either stays within `budget`, and keys and values of all rows within four times as many
    columns. A batch that would save little is read whole, within `budget`. Deterministic. Prompts
    are taken by their own length or by that of their responses, whichever computes less.
    """
    sizes, before = tensors.lengths(transcripts), _before(transcripts)
    if before is None:
        return None
    after, rows_of = sizes - before, defaultdict(list)
    for row, prompt in enumerate(tensors.prompt_hashes(transcripts)):
        rows_of[prompt].append(row)
    found = []
    for main, other in ((before, after), (after, before)):
        pieces = sorted(
            (sorted(rows, key=lambda row: (-after[row], row)) for rows in rows_of.values()),
            key=lambda rows: (-main[rows].max(), -other[rows].max()),
        )
        parts = (part for rows in pieces for part in _parts(rows, before, after, budget))
        found.append(_filled(parts, before, after, budget))
    costs = [sum(_Cost.of(b, before, after).computed for b in batches) for batches in found]
    whole = sum(len(rows) * sizes[rows].max() for rows in batching.plan(sizes.tolist(), budget))
    if min(costs) > (1 - WORTHWHILE) * whole:
        return None
    return [[row for rows in batch for row in rows] for batch in found[int(np.argmin(costs))]]


def shortest(transcripts: xr.Dataset, share_prompts: bool) -> int:
    """The fewest tokens that are computed of a row: with prompts shared, those behind its own."""
    sizes = tensors.lengths(transcripts)
    if not share_prompts:
        return int(sizes.min())
    before = _before(transcripts)
    return 1 if before is None else int((sizes - before).min())


def _before(transcripts: xr.Dataset) -> np.ndarray | None:
    """How many tokens each row has before the last of its prompt; None where one has none.

    None too for transcripts that were cut, whose prompts are longer than what is there.
    """
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    asked = (real & (transcripts.token.values < 0)).sum(1)
    whole = (asked == transcripts.prompt_length.values).all()
    return asked + BEGINNING if whole and (asked + BEGINNING >= 1).all() else None


@dataclass(frozen=True)
class _Cost:
    """What a batch of prompts' rows computes: prompts, responses, or whole rows."""

    prompts: int
    responses: int
    whole: int

    @classmethod
    def of(cls, pieces: Sequence[list[int]], before: np.ndarray, after: np.ndarray) -> _Cost:
        rows = [row for part in pieces for row in part]
        wide, long = int(before[rows].max()), int(after[rows].max())
        columns = int((before + after)[rows].max())
        return cls(len(pieces) * wide, len(rows) * long, len(rows) * columns)

    @property
    def shares(self) -> bool:
        return self.prompts + self.responses <= (1 - WORTHWHILE) * self.whole

    @property
    def computed(self) -> int:
        return self.prompts + self.responses if self.shares else self.whole

    def fits(self, budget: int) -> bool:
        if not self.shares:
            return self.whole <= budget
        return max(self.prompts, self.responses) <= budget and self.whole <= HELD * budget


def _parts(
    rows: list[int], before: np.ndarray, after: np.ndarray, budget: int
) -> Iterator[list[int]]:
    """The rows of a prompt in as many parts as they need."""
    part: list[int] = []
    for row in rows:
        if part and not _Cost.of([[*part, row]], before, after).fits(budget):
            yield part
            part = []
        part.append(row)
    yield part


def _filled(
    pieces: Iterable[list[int]], before: np.ndarray, after: np.ndarray, budget: int
) -> list[list[list[int]]]:
    batches: list[list[list[int]]] = []
    for rows in pieces:
        joined = [*batches[-1], rows] if batches else [rows]
        cost = _Cost.of(joined, before, after)
        real = sum(before[part[0]] + after[part].sum() for part in joined)
        near = real >= batching.ALIKE * cost.computed
        near = near or cost.computed < budget * batching.WORTHWHILE
        if batches and cost.fits(budget) and near:
            batches[-1] = joined
        else:
            batches.append([rows])
    return batches


def described(budget: int, plan: Sequence[Sequence[int]], once: bool) -> dict[str, Any]:
    """The batches as provenance records them; of other plans, arrays are not compared.

    >>> shared({"prompts": "once"}), shared(described(8, [[0]], once=False))
    (True, False)
    """
    if not once:
        return {"budget": budget, "plan": digest(plan)}
    return {"budget": budget, "plan": digest([PROVED, plan]), "prompts": "once"}


def shared(batches: Mapping[str, Any]) -> bool:
    """Whether batches that are `described` so read each prompt once."""
    return batches.get("prompts") == "once"


def behind(
    model: TransformersModel, batch: Batch, deepest: int, worthwhile: float = WORTHWHILE
) -> tuple[Batch, dict[str, Any], dict[str, Any]] | None:
    """Each row from the last token of its prompt on, and what its trace takes: inputs, options.

    Every distinct text before that is read once, up to the block `deepest`. None where that would
    save less than the share `worthwhile` of the batch's columns × rows. Only of a model that
    `may_share`.
    """
    before, after = _halves(batch)
    if before is None:
        return None
    chosen, row_of = distinct(before)
    rows, width = batch.input_ids.shape
    read = len(chosen) * before.input_ids.shape[1] + after.input_ids.numel()
    if deepest < 0 or read > (1 - worthwhile) * rows * width:
        return None
    cache = DynamicCache(config=model._module.config)
    layers = [Repeated() for _ in cache.layers]
    cache.layers = [*layers]
    given = {"past_key_values": cache, "use_cache": True}
    whole = torch.cat([before.attention_mask, after.attention_mask], 1)
    # said for the prompts too: a model may count otherwise what it is told nothing of
    positions = (whole.cumsum(1) - 1).clamp(min=0)
    apart = positions.split([before.input_ids.shape[1], after.input_ids.shape[1]], 1)
    inputs = {name: values[chosen] for name, values in before.model_inputs.items()}
    _block(model, {**inputs, "position_ids": apart[0][chosen]}, given, deepest)
    read_in = [(layer, layer.keys.device) for layer in layers if layer.keys is not None]
    # once a device: from pageable memory every block's copy would wait
    rows_at = {d: torch.tensor(row_of, device=d) for d in {device for _, device in read_in}}
    for layer, device in read_in:
        layer.row_of = rows_at[device]
    rest = {"input_ids": after.input_ids, "attention_mask": whole, "position_ids": apart[1]}
    return after, rest, given


def columns(transcripts: xr.Dataset) -> np.ndarray:
    """The tokens of transcripts that `behind` leaves: from the last of the prompts on."""
    return np.asarray(transcripts.token.values >= BEGINNING)


def _halves(batch: Batch) -> tuple[Batch | None, Batch]:
    """What is before the last token of each prompt, and the rest, each padded on its left."""
    width = batch.input_ids.shape[1]
    later = torch.arange(width) >= batch.starts[:, None] + BEGINNING
    earlier = batch.attention_mask.bool() & ~later
    longest = int(later.sum(1).max())
    rest = slice(width - longest, width)
    shown = (batch.attention_mask.bool() & later).long()[:, rest]
    starts = batch.starts - (width - longest)
    after = Batch(batch.input_ids[:, rest] * shown, shown, starts, batch.prompts)
    if not bool(earlier.any(1).all()):
        # a prompt of one token: nothing lies before it
        return None, after
    wide = int(earlier.sum(1).max())
    # a row's text ends right before its last token: from there so many columns back
    back = batch.starts[:, None] + BEGINNING - wide + torch.arange(wide)
    mask = batch.attention_mask.gather(1, back.clamp(min=0)) * (back >= 0)
    ids = batch.input_ids.gather(1, back.clamp(min=0)) * mask
    ends = torch.full_like(batch.starts, wide)
    return Batch(ids, mask, ends, batch.prompts), after


def _same(model: TransformersModel) -> bool:
    """Whether two responses to each of two prompts of unequal length are foretold alike."""
    batch = crossed(probe(model))
    takes = "position_ids" in inspect.signature(model._module.forward).parameters
    # keys and values alone, made by the model itself: another kind may keep more
    if not takes or read_apart(model, batch, [0], 1, [0], (DynamicLayer,)) is None:
        return False
    deepest = len(model.layers) - 1
    made = behind(model, batch, deepest, worthwhile=0.0)
    if made is None:
        return False
    after, inputs, given = made
    once = _block(model, inputs, given, deepest)
    each = _block(model, batch.model_inputs, {"use_cache": False}, deepest)[:, -once.shape[1] :]
    real = after.attention_mask.bool().to(once.device)
    error = (once - each)[real].norm(dim=-1) / each[real].norm(dim=-1)
    rounded = origin(model).dtype not in ("float32", "float64")
    return bool((error <= (ALIKE_ROUNDED if rounded else ALIKE)).all())


def _block(
    model: TransformersModel, inputs: Mapping[str, Any], options: Mapping[str, Any], layer: int
) -> Float[torch.Tensor, "row column dim"]:
    """What a block puts out; the forward goes no further."""
    with torch.no_grad(), model.trace(dict(inputs), **options) as tracer:
        residual = nnsight.save(first(model.layers[layer].output))
        tracer.stop()
    return residual.float()
