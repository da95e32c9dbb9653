"""A forward of rows behind what they begin with, which is read once, however many say more."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import TransformersModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from tracekit.model.checks.probe import probe
from tracekit.model.record import origin
from tracekit.model.sites import first
from tracekit.model.threads import one_at_a_time
from tracekit.passes.beginnings.planning import LAST
from tracekit.passes.generating.shared_prompts import (
    WORTHWHILE,
    distinct,
    plain_positions,
    read_apart,
    takes_cache,
)
from tracekit.passes.generating.stepping import crossed
from tracekit.transcripts.padded import Batch

PROVED, REFUSED = "prompts once", "prompts each"
# parts of a residual's norm by which it may differ
ALIKE, ALIKE_ROUNDED = 1e-4, 0.1


class Repeated(DynamicLayer):
    """Keys and values of a few texts, for the many rows that begin with one.

    `row_of` says which text each row begins with. What a layer is given is joined to them and
    handed back; only the few texts stay in memory, unless the layer `grows` to what was joined.
    Without `row_of` there is no text, and it grows as elsewhere.
    """

    row_of: torch.Tensor | None = None
    grows = False

    def behind(self, row_of: torch.Tensor | None, grows: bool) -> Repeated:
        """A layer of its own with the same texts; an empty one where none were read."""
        made = Repeated()
        if self.keys is not None and self.values is not None:
            made.lazy_initialization(self.keys, self.values)
            made.keys, made.values = self.keys, self.values
            made.row_of, made.grows = row_of, grows
        return made

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The texts' keys and values in front of those given: (row, head, column, width)."""
        if self.row_of is None or self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        pairs = ((self.keys, key_states), (self.values, value_states))
        keys, values = (torch.cat([_at(old, self.row_of), new], -2) for old, new in pairs)
        if self.grows:
            self.keys, self.values, self.row_of = keys, values, None
        return keys, values


def _at(texts: torch.Tensor, row_of: torch.Tensor) -> torch.Tensor:
    """The text of each row; of one alone there is no copy."""
    return texts.expand(len(row_of), -1, -1, -1) if len(texts) == 1 else texts[row_of]


@dataclass(frozen=True)
class Read:
    """Texts that were read up to a block: which columns are tokens, keys and values a layer."""

    mask: Int[torch.Tensor, "text column"]
    layers: Sequence[Repeated]

    def behind(
        self, model: TransformersModel, row_of: Sequence[int], rows: Batch, grows: bool = False
    ) -> tuple[Batch, dict[str, Any], dict[str, Any]]:
        """Rows that each go on from a text, and what their trace takes: inputs, options.

        With `grows`, the layers of the options keep the rows as well.
        """
        # once a device: from pageable memory every block's copy would wait
        devices = {layer.keys.device for layer in self.layers if layer.keys is not None}
        at = {device: torch.tensor(row_of, device=device) for device in devices}
        cache = DynamicCache(config=model._module.config)
        cache.layers = [
            one.behind(None if one.keys is None else at[one.keys.device], grows)
            for one in self.layers
        ]
        ids, mask = rows.input_ids, torch.cat([self.mask[row_of], rows.attention_mask], 1)
        # said for prompts too: a model may count otherwise what it is told nothing of
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, mask.shape[1] - ids.shape[1] :]
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return rows, inputs, {"past_key_values": cache, "use_cache": True}


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


def begun(model: TransformersModel, transcripts: xr.Dataset, common: int, deepest: int) -> Read:
    """The first `common` tokens of all rows, read once up to the block `deepest`."""
    if not common:
        return _nothing(model)
    ids = transcripts.token_id.transpose("prompt", "token").values[0]
    text = torch.as_tensor(ids[ids >= 0][None, :common].astype(np.int64))
    alone = Batch(text, torch.ones_like(text), torch.tensor([common]), ("all",))
    return _read(model, _nothing(model), alone, deepest)


def behind(
    model: TransformersModel,
    batch: Batch,
    deepest: int,
    common: Read,
    worthwhile: float = WORTHWHILE,
) -> tuple[Batch, dict[str, Any], dict[str, Any]] | None:
    """Each row behind what it begins with, and what its trace takes; None where that is nothing.

    Every distinct prompt is read once up to its last token (up to the block `deepest`), behind
    what is `common` to all rows; rows begin with that last token then. Where this would save less
    than the share `worthwhile` of the batch's columns × rows, they begin behind what is common.
    Only of a model that `may_share`.
    """
    batch = _without(batch, common.mask.shape[1])
    before, after = _halves(batch)
    if before is not None:
        chosen, row_of = distinct(before)
        read = len(chosen) * before.input_ids.shape[1] + after.input_ids.numel()
        if read <= (1 - worthwhile) * batch.input_ids.numel():
            prompts = Batch(
                before.input_ids[chosen],
                before.attention_mask[chosen],
                before.starts[chosen],
                tuple(before.prompts[row] for row in chosen),
            )
            return _read(model, common, prompts, deepest).behind(model, row_of, after)
    if not common.mask.shape[1]:
        return None
    return common.behind(model, [0] * len(batch.input_ids), batch)


def _nothing(model: TransformersModel) -> Read:
    layers = [Repeated() for _ in DynamicCache(config=model._module.config).layers]
    return Read(torch.zeros(1, 0, dtype=torch.long), layers)


def _read(model: TransformersModel, common: Read, texts: Batch, deepest: int) -> Read:
    """Texts, each behind the one that all begin with."""
    _, inputs, given = common.behind(model, [0] * len(texts.input_ids), texts, grows=True)
    _block(model, inputs, given, deepest)
    return Read(inputs["attention_mask"], given["past_key_values"].layers)


def _without(batch: Batch, common: int) -> Batch:
    """The batch without the first tokens of each row, which are the same in all."""
    if not common:
        return batch
    mask = (batch.attention_mask * (batch.attention_mask.cumsum(1) > common))[:, common:]
    ids = batch.input_ids[:, common:] * mask
    return Batch(ids, mask, batch.starts - common, batch.prompts)


def _halves(batch: Batch) -> tuple[Batch | None, Batch]:
    """What is before the last token of each prompt, and the rest, each padded on its left."""
    width = batch.input_ids.shape[1]
    later = torch.arange(width) >= batch.starts[:, None] + LAST
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
    back = batch.starts[:, None] + LAST - wide + torch.arange(wide)
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
    made = behind(model, batch, deepest, _nothing(model), worthwhile=0.0)
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
