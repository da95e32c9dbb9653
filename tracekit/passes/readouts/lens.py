"""The logit lens, plain or tuned: what residuals say through the model's own head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import require_fit
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.load import model_provenance
from tracekit.model.record import origin
from tracekit.passes.capture import capture
from tracekit.passes.readouts import tuned_lens
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import token_texts


def unembed(
    model: TransformersModel,
    array: xr.DataArray | xr.Dataset,
    top: int = 10,
    *,
    tuned: str | Path | None = None,
    transfer: bool = False,
) -> xr.Dataset:
    """The tokens that directions or residuals promote: the logit lens.

    `array` (…, dim) takes the place of the last block's output: the final norm, the output head
    and any softcap or scale around it are the model's own. Of transcripts it is what `capture`
    gives of them: the last prompt token and the response, after each block. Returns a Dataset
    over (…, top): `promoted` (text) and `logit`, the `top` largest first: by layer, where `array`
    has layers. `tuned` is the folder of a tuned lens (`params.pt`), whose translators come first.
    An array made with other weights needs `transfer=True`; the model that read it, with its adapter
    and edits, is in the provenance as `read_by`.
    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).

    Errors: `ValueError` for an array of another width or of other weights, for a remote model,
    whose head is not here, and for a model whose logits are not made of the last block's output
    alone.

    >>> unembed(model, vectors.sel(layer=12)).sizes["top"]
    10
    """
    most = model._module.config.get_text_config().vocab_size
    if not 1 <= top <= most:
        raise InputError(f"top={top} was asked for; give a number from 1 to {most}.")
    array = _read_by(model, array, tuned, transfer)
    outer = [dim for dim in array.dims if dim != "dim"]
    values = torch.as_tensor(array.transpose(*outer, "dim").values)
    rows = head.of_residuals(model, values.reshape(-1, values.shape[-1]))
    parts = [part.topk(top, dim=-1) for part in rows]
    shape = (*values.shape[:-1], top)
    scores = torch.cat([part.values for part in parts]).reshape(shape)
    ids = torch.cat([part.indices for part in parts]).reshape(shape)
    # a hole promotes nothing
    ids = ids.masked_fill(scores.isnan(), -1)
    texts = token_texts(model.tokenizer, ids.numpy())
    coords = {name: c for name, c in array.coords.items() if "dim" not in c.dims}
    coords["top"] = np.arange(top, dtype=np.int32)
    return xr.Dataset(
        {"promoted": ((*outer, "top"), texts), "logit": ((*outer, "top"), scores.numpy())},
        coords=coords,
        attrs=dict(array.attrs),
    )


def logit_lens(
    model: TransformersModel,
    array: xr.DataArray | xr.Dataset,
    tokens: Sequence[str | int],
    *,
    tuned: str | Path | None = None,
    transfer: bool = False,
) -> xr.Dataset:
    """How likely some tokens are at every place of residuals, read through the model's own head.

    `array` is (…, dim), or transcripts, as for `unembed`. `tokens` are texts of one token each
    (" Paris"), or ids. Returns a Dataset over (…, choice): `logprob` (nats, NaN in holes) and
    `token_rank` among the vocabulary (0 is the likeliest, −1 in holes).
    `tuned` and `transfer` as for `unembed`.
    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).

    Errors: `ValueError` for a text that is no single token (its pieces are named), for a token
    given twice, and as `unembed`.

    >>> logit_lens(model, traces, [" the", " a"]).logprob.dims
    ('prompt', 'token', 'layer', 'choice')
    """
    array = _read_by(model, array, tuned, transfer)
    outer = [dim for dim in array.dims if dim != "dim"]
    ids = _single(model, tokens)
    values = torch.as_tensor(array.transpose(*outer, "dim").values)
    scores, ranks = [], []
    for part in head.of_residuals(model, values.reshape(-1, values.shape[-1])):
        own = part[:, ids]
        scores.append(part.log_softmax(-1)[:, ids])
        over = torch.stack([(part > one[:, None]).sum(1) for one in own.T], 1)
        ranks.append(over.masked_fill(own.isnan(), -1))
    shape = (*values.shape[:-1], len(ids))
    coords = {name: c for name, c in array.coords.items() if "dim" not in c.dims}
    coords["choice"] = token_texts(model.tokenizer, np.array(ids))
    named = {"logprob": torch.cat(scores), "token_rank": torch.cat(ranks).to(torch.int32)}
    made = {name: ((*outer, "choice"), v.reshape(shape).numpy()) for name, v in named.items()}
    return xr.Dataset(made, coords, attrs=dict(array.attrs))


def _read_by(
    model: TransformersModel,
    array: xr.DataArray | xr.Dataset,
    tuned: str | Path | None,
    transfer: bool,
) -> xr.DataArray:
    """The array as the head is to read it, with who reads it, and a tuned lens, as provenance."""
    _refuse_headless(model)
    if isinstance(array, xr.Dataset):
        array = capture(model, array, progress=False)
    _refuse_unfit(model, array)
    reader = {
        **model_provenance(model),
        **require_fit(model, array, transfer=transfer, what="array"),
    }
    made = read(array) if "provenance" in array.attrs else {}
    made["read_by"] = reader
    if tuned is not None:
        lens = tuned_lens.read_tuned_lens(tuned, model)
        array, made["tuned_lens"] = lens.translated(array, len(model.layers)), lens.mark
    return stamp(array, made)


def _single(model: TransformersModel, tokens: Sequence[str | int]) -> list[int]:
    ids: list[int] = []
    for token in [tokens] if isinstance(tokens, str) else tokens:
        if isinstance(token, str):
            found = list(model.tokenizer(token, add_special_tokens=False)["input_ids"])
        else:
            found = [int(token)]
        if len(found) != 1:
            pieces = [str(piece) for piece in token_texts(model.tokenizer, np.array(found, int))]
            raise InputError(
                f"The token {token!r} was asked for; it is {len(found)} tokens: {pieces}. Give one "
                "token, often with the space before it."
            )
        ids += found
    if not ids or len(set(ids)) < len(ids):
        raise InputError(f"The tokens {list(tokens)} were asked for. Give some, each once.")
    return ids


def _refuse_headless(model: TransformersModel) -> None:
    if origin(model).remote is True:
        raise InputError(
            f"unembed needs the output head of {origin(model).name}, which is on the server. "
            "Save model.lm_head(model.norm(…)) in a trace, or load the model here."
        )
    refused = origin(model).refused.get("unembed")
    if refused is not None:
        raise InputError(f"unembed was asked for, but {refused}")


def _refuse_unfit(model: TransformersModel, array: xr.DataArray) -> None:
    width = model._module.config.get_text_config().hidden_size
    if array.sizes.get("dim") != width:
        raise InputError(
            f"unembed was given an array of sizes {dict(array.sizes)}; this model's residual "
            f"stream has {width} dims. Use an array of this model."
        )
