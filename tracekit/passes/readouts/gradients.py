"""How the model's next word depends on each residual: gradients, through nnsight's backward."""

from __future__ import annotations

from collections.abc import Sequence

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.head import read as read_logits
from tracekit.model.load import model_provenance
from tracekit.model.record import remote_options
from tracekit.passes import batching
from tracekit.passes.forward import flat_index
from tracekit.passes.labelling import wrap
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash
from tracekit.transcripts.selection import Tokens, kept_tokens

# every block's activations are kept for the way back
KEPT_ACTIVATIONS = 8


def gradients(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    towards: str,
    against: str,
    tokens: Tokens = "response",
    token_budget: int | None = None,
) -> xr.DataArray:
    """What raises the chance of one next word against another: (prompt, token, layer, dim).

    The gradient of ln p(`towards`) − ln p(`against`), as the word after each row's last token,
    with respect to the residual stream after each block (−1: the embedding output), in nats per
    residual unit. Each word counts by its first token. `tokens` as in `capture`; every block is
    read by default. NaN in holes.

    Errors: `ValueError` for layers and tokens that are not there, and for words that begin with
    the same token.

    >>> gradients(model, runs, towards="Yes", against="No").dims
    ('prompt', 'token', 'layer', 'dim')
    """
    wanted = sites.check_layers(model, listed(layers), "residual")
    words = _first_ids(model, towards, against)
    kept = kept_tokens(transcripts, tokens)
    budget = token_budget or batching.default_budget(model, parts=KEPT_ACTIVATIONS)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    width = model._module.config.get_text_config().hidden_size
    filled = np.full((*kept.shape, len(wanted), width), np.nan, np.float32)
    for rows, values in batching.over(
        plan,
        lambda rows: _backward(model, transcripts.isel(prompt=rows), kept[rows], wanted, words),
    ):
        inner, columns = np.nonzero(kept[rows])
        filled[np.asarray(rows)[inner], columns] = values
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "ids": ids_hash(transcripts),
        "gradient": {"towards": towards, "against": against},
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    array = wrap(filled, transcripts, wanted).isel(token=kept.any(0))
    return stamp(array.rename("gradient"), made_with)


def _first_ids(model: TransformersModel, towards: str, against: str) -> tuple[int, int]:
    ids = [
        model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (towards, against)
    ]
    if not all(ids) or ids[0][0] == ids[1][0]:
        raise InputError(
            f"The words {towards!r} and {against!r} were asked for, and begin with the tokens "
            f"{[row[:1] for row in ids]}: their chances cannot be told apart. Give words that "
            "begin with different tokens."
        )
    return ids[0][0], ids[1][0]


def _backward(
    model: TransformersModel,
    transcripts: xr.Dataset,
    kept: np.ndarray,
    layers: list[int],
    words: tuple[int, int],
) -> np.ndarray:
    made = batching.batch(model, transcripts)
    index, _ = flat_index(model, transcripts, kept, made)
    options = {"use_cache": False, **remote_options(model)}
    towards, against = words
    with torch.enable_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        saved = nnsight.save([])
        values = [sites.read(model, layer, "residual") for layer in layers[:1]]
        # the weights need no gradients: the graph begins at the first value that is asked for
        values[0].requires_grad_()
        values += [sites.read(model, layer, "residual") for layer in layers[1:]]
        logits = read_logits(model)[:, -1].float()
        rise = (logits[:, towards] - logits[:, against]).sum()
        with rise.backward():
            for value in reversed(values):
                flat = value.grad.flatten(0, 1)  # type: ignore[union-attr]
                saved.append(flat.index_select(0, index.to(flat.device)).float())
    return torch.stack([value.cpu() for value in reversed(saved)], 1).numpy()
