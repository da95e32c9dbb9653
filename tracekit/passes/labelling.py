"""The labels of transcripts back onto values that a trace saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.load import model_provenance
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.labels import refuse_taken
from tracekit.transcripts.tensors import batch, require_transcripts

# What rides along from transcripts onto everything computed from them.
ALONG_TOKENS = ("token_id", "role", "token_text")


def label(
    values: torch.Tensor | Sequence[torch.Tensor],
    transcripts: xr.Dataset,
    layer: int | Sequence[int] | None = None,
    model: TransformersModel | None = None,
) -> xr.DataArray:
    """The labels back onto what a trace of `inputs(transcripts)` saved.

    One tensor (row, column, dim) gives (prompt, token, dim); one tensor or a stack of them per
    layer, with `layer` a sequence, gives (prompt, token, layer, dim). Values become float32, holes
    NaN. Give the `model` that was traced, so that the provenance knows it: `difference` refuses
    arrays whose weights it does not know.

    Errors: `ValueError` when rows, columns or layers do not match the transcripts, and where the
    columns are as many as the model's heads: then heads would pass for tokens (without the
    `model` this cannot be seen).

    >>> with model.trace(tk.inputs(runs)):
    ...     queries = model.layers[12].attn.q_proj.output.save()
    >>> label(queries, runs, layer=12).dims
    ('prompt', 'token', 'dim')
    """
    require_transcripts(transcripts)
    many = layer is not None and not isinstance(layer, int | np.integer)
    stack = torch.stack(list(values)) if many else torch.as_tensor(values)[None]
    made = batch(transcripts)
    expected = (len(layer) if many else 1, *made.input_ids.shape)  # type: ignore[arg-type]
    if stack.ndim != 4 or tuple(stack.shape[:3]) != expected:
        raise InputError(
            f"label was given values of shape {tuple(stack.shape)[0 if many else 1 :]}; these "
            f"transcripts need {expected[0 if many else 1 :]} and one more axis. "
            "Trace inputs(transcripts) whole, and do not slice rows or columns before labelling."
        )
    if model is not None:
        _refuse_as_many_heads(model, expected[-1])
    columns = made.attention_mask.bool()
    kept = stack[:, columns].transpose(0, 1).float().cpu().numpy()
    filled = scatter(kept, transcripts.token_id.transpose("prompt", "token").values >= 0)
    layers = [int(n) for n in np.atleast_1d(0 if layer is None else layer)]
    array = wrap(filled, transcripts, layers)
    if model is not None:
        made_by = {"batches": {"plan": "one"}, **model_provenance(model)}
        array = stamp(array, {**read(transcripts), **made_by})
    return array if many else array.isel(layer=0, drop=layer is None)


def _refuse_as_many_heads(model: TransformersModel, columns: int) -> None:
    config = model._module.config.get_text_config()
    names = ("num_attention_heads", "num_key_value_heads")
    heads = {name: getattr(config, name, None) for name in names}
    same = [name for name, count in heads.items() if count == columns]
    if same:
        raise InputError(
            f"label was given values of {columns} columns, and this model's {same[0]} is {columns} "
            "too: heads cannot be told from tokens. Trace transcripts of another width (with a "
            "longer prompt among them), or use tk.capture with site= a function of the block."
        )


def scatter(
    kept: Float[np.ndarray, kept * rest], where: np.ndarray
) -> Float[np.ndarray, "prompt token *rest"]:
    """Values of the real tokens, row by row, into their places; NaN elsewhere."""
    filled = np.full((*where.shape, *kept.shape[1:]), np.nan, np.float32)
    filled[where] = kept
    return filled


def wrap(
    values: np.ndarray, transcripts: xr.Dataset, layers: Sequence[int], last: str = "dim"
) -> xr.DataArray:
    """A DataArray over (prompt, token, layer, `last`) with every label of the transcripts."""
    refuse_taken(transcripts.coords, ("layer", "dim"), "Labelling")
    riding = {name: transcripts[name] for name in ALONG_TOKENS if name in transcripts}
    coords: dict[str, Any] = {
        **{str(n): c for n, c in transcripts.coords.items() if set(c.dims) <= {"prompt", "token"}},
        **riding,
        "layer": np.asarray(layers, np.int32),
    }
    if last == "dim":
        coords["dim"] = np.arange(values.shape[-1], dtype=np.int32)
    array = xr.DataArray(values, dims=("prompt", "token", "layer", last), coords=coords)
    return stamp(array, read(transcripts))
