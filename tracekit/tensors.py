"""Transcripts to padded tensors, and tensors back to labels."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import TransformersModel

from tracekit.labels import refuse_taken
from tracekit.provenance import digest, read, stamp
from tracekit.transcript import ids_of

# What rides along from transcripts onto everything computed from them.
ALONG_TOKENS = ("token_id", "role", "token_text")


@dataclass(frozen=True)
class Batch:
    """Left-padded model inputs, and where each token label lies in them.

    `starts[row]` is the column of label 0 (the first response token); a column's label is
    column − start.
    """

    input_ids: Int[torch.Tensor, "row column"]
    attention_mask: Int[torch.Tensor, "row column"]
    starts: Int[torch.Tensor, row]
    prompts: tuple[str, ...]

    @property
    def model_inputs(self) -> dict[str, torch.Tensor]:
        """What nnsight takes; it derives the position ids from the mask."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}


def require_transcripts(transcripts: object) -> None:
    """Errors: `TypeError` for anything but transcripts, such as a text."""
    if not isinstance(transcripts, xr.Dataset) or "token_id" not in transcripts:
        raise TypeError(
            f"Transcripts are needed, and this is {reprlib.repr(transcripts)} "
            f"({type(transcripts).__name__}). Make them with tk.encode(model, [text, …]) or "
            "tk.generate; one text alone is a list of one."
        )


def lengths(transcripts: xr.Dataset) -> Int[np.ndarray, prompt]:
    """The number of real tokens of each row. Errors: `TypeError` for anything but transcripts."""
    require_transcripts(transcripts)
    return (transcripts.token_id >= 0).sum("token").values


def prompt_hashes(transcripts: xr.Dataset) -> list[str]:
    """A hash of each row's prompt ids (those before the response)."""
    before = transcripts.token_id.transpose("prompt", "token").sel(token=slice(None, -1)).values
    return [digest(row[row >= 0].tolist()) for row in before]


def batch(transcripts: xr.Dataset, rows: Sequence[int] | None = None, pad: int = 0) -> Batch:
    """Rows of transcripts as one left-padded batch."""
    chosen = transcripts if rows is None else transcripts.isel(prompt=list(rows))
    ids = chosen.token_id.transpose("prompt", "token").values
    sizes = (ids >= 0).sum(1)
    width = int(sizes.max())
    padded = np.full((len(ids), width), pad, np.int64)
    mask = np.zeros_like(padded)
    for n, size in enumerate(sizes):
        padded[n, width - size :] = ids[n][ids[n] >= 0]
        mask[n, width - size :] = 1
    starts = width - sizes + chosen.prompt_length.values
    names = tuple(ids_of(chosen))
    return Batch(torch.as_tensor(padded), torch.as_tensor(mask), torch.as_tensor(starts), names)


def inputs(transcripts: xr.Dataset) -> dict[str, torch.Tensor]:
    """Input ids and attention mask, left-padded, for your own `model.trace(inputs(runs))`.

    >>> {name: tuple(value.shape) for name, value in inputs(runs).items()}
    {'input_ids': (1, 34), 'attention_mask': (1, 34)}
    """
    require_transcripts(transcripts)
    return batch(transcripts).model_inputs


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

    >>> label(queries, runs, layer=30).dims
    ('prompt', 'token', 'dim')
    """
    require_transcripts(transcripts)
    many = layer is not None and not isinstance(layer, int)
    stack = torch.stack(list(values)) if many else torch.as_tensor(values)[None]
    made = batch(transcripts)
    expected = (len(layer) if many else 1, *made.input_ids.shape)  # type: ignore[arg-type]
    if stack.ndim != 4 or tuple(stack.shape[:3]) != expected:
        raise ValueError(
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
        from tracekit.model import model_provenance

        made_by = {"batches": {"plan": "one"}, **model_provenance(model)}
        array = stamp(array, {**read(transcripts), **made_by})
    return array if many else array.isel(layer=0, drop=layer is None)


def _refuse_as_many_heads(model: TransformersModel, columns: int) -> None:
    config = model._module.config.get_text_config()
    names = ("num_attention_heads", "num_key_value_heads")
    heads = {name: getattr(config, name, None) for name in names}
    same = [name for name, count in heads.items() if count == columns]
    if same:
        raise ValueError(
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
