"""A forward of responses alone, behind prompts that are each read once, however many say more."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from tracekit.errors import InputError
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
from tracekit.passes.request import Asked
from tracekit.storage.identity import digest
from tracekit.transcripts import tensors
from tracekit.transcripts.padded import Batch

PROVED, REFUSED = "prompts once", "prompts each"
# parts of a residual's norm by which it may differ
ALIKE, ALIKE_ROUNDED = 1e-4, 0.1
# the least of a response is the last token of its prompt, which says its first
BEGINNING = -1


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
        of = self.row_of.to(key_states.device)
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


def require_responses(
    transcripts: xr.Dataset, asked: Sequence[Asked], kept: Sequence[np.ndarray]
) -> None:
    """Errors: `ValueError` where a request keeps what is not computed for each row."""
    labels = transcripts.token.values
    for one, places in zip(asked, kept, strict=True):
        if one.is_pattern:
            raise InputError(
                "share_prompts=True was given with site='pattern', which is of whole rows. "
                "Leave it out."
            )
        least = BEGINNING + one.is_logprob
        there = int(labels[places.any(tuple(range(places.ndim - 1)))].min())
        if there < least:
            raise InputError(
                f"share_prompts=True was given, and {one.name} is asked for from token {there} on: "
                f"before {least} rows of one prompt have no values of their own. Give "
                f"tokens=slice({least}, None), or leave share_prompts out."
            )


def plan(transcripts: xr.Dataset, budget: int) -> list[list[int]]:
    """Rows in batches, those of one prompt side by side; what is computed stays within `budget`.

    That is the longest prompt for each distinct one, and the longest response for each row.
    Deterministic. A prompt whose rows exceed the budget fills batches of its own. Prompts are
    taken by their own length or by that of their responses, whichever computes less.
    """
    sizes, before = tensors.lengths(transcripts), transcripts.prompt_length.values + BEGINNING
    if (before < 1).any():
        # nothing lies before such a row, so that its batch would be read whole
        return batching.plan(sizes.tolist(), budget)
    after, rows_of = sizes - before, defaultdict(list)
    for row, prompt in enumerate(tensors.prompt_hashes(transcripts)):
        rows_of[prompt].append(row)
    found = []
    for main, other in ((before, after), (after, before)):
        pieces = sorted(
            (sorted(rows, key=lambda row: (-after[row], row)) for rows in rows_of.values()),
            key=lambda rows: (-main[rows].max(), -other[rows].max()),
        )
        found.append(_filled(_parts(pieces, before, after, budget), before, after, budget))
    chosen = min(found, key=lambda batches: sum(_computed(b, before, after) for b in batches))
    return [[row for rows in batch for row in rows] for batch in chosen]


def _parts(pieces: list[list[int]], before: Any, after: Any, budget: int) -> Iterator[list[int]]:
    for rows in pieces:
        most = max(int((budget - before[rows[0]]) // after[rows].max()), 1)
        yield from (rows[at : at + most] for at in range(0, len(rows), most))


def _filled(
    pieces: Iterable[list[int]], before: Any, after: Any, budget: int
) -> list[list[list[int]]]:
    batches: list[list[list[int]]] = []
    for rows in pieces:
        joined = [*batches[-1], rows] if batches else []
        computed = _computed(joined, before, after)
        real = sum(before[part[0]] + after[part].sum() for part in joined)
        near = real >= batching.ALIKE * computed or computed < budget * batching.WORTHWHILE
        if joined and computed <= budget and near:
            batches[-1] = joined
        else:
            batches.append([rows])
    return batches


def _computed(pieces: Sequence[list[int]], before: Any, after: Any) -> int:
    rows = [row for part in pieces for row in part]
    return int(len(pieces) * before[rows].max() + len(rows) * after[rows].max()) if rows else 0


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
    if read > (1 - worthwhile) * rows * width:
        return None
    cache = DynamicCache(config=model._module.config)
    layers = [Repeated() for _ in cache.layers]
    cache.layers = [*layers]
    given = {"past_key_values": cache, "use_cache": True}
    inputs = {name: values[chosen] for name, values in before.model_inputs.items()}
    _block(model, inputs, given, deepest)
    for layer in layers:
        layer.row_of = torch.tensor(row_of)
    mask = torch.cat([before.attention_mask, after.attention_mask], 1)
    inputs = {
        "input_ids": after.input_ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -after.input_ids.shape[1] :],
    }
    return after, inputs, given


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
    batch = _crossed(probe(model))
    takes = "position_ids" in inspect.signature(model._module.forward).parameters
    # keys and values alone, made by the model itself: another kind may keep more
    if not takes or read_apart(model, batch, [0], 1, [0], (DynamicLayer,)) is None:
        return False
    made = behind(model, batch, len(model.layers) - 1, worthwhile=0.0)
    if made is None:
        return False
    after, inputs, given = made
    deepest = len(model.layers) - 1
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


def _crossed(batch: Batch) -> Batch:
    """Each row of a batch as a prompt, with each row behind it as a response."""
    texts = [
        row[real] for row, real in zip(batch.input_ids, batch.attention_mask.bool(), strict=True)
    ]
    pairs = [(before, after) for before in texts for after in texts]
    width = max(len(before) + len(after) for before, after in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (before, after) in enumerate(pairs):
        whole = torch.cat([before, after])
        ids[row, width - len(whole) :], mask[row, width - len(whole) :] = whole, 1
    starts = torch.tensor([width - len(after) for _, after in pairs])
    return Batch(ids, mask, starts, tuple(f"probe/{n}" for n in range(len(pairs))))
