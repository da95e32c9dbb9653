"""What the model's own logits say: log-probabilities of ids, and tokens of directions."""

from __future__ import annotations

from collections.abc import Sequence

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.steering import rows_of
from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.load import model_provenance
from tracekit.model.record import origin, remote_options
from tracekit.passes import batching
from tracekit.passes.labelling import wrap
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash, ids_of, token_texts


def logprobs(
    model: TransformersModel, transcripts: xr.Dataset, *, token_budget: int | None = None
) -> xr.DataArray:
    """The natural log-probability of each token given those before it: (prompt, token), in nats.

    NaN in holes and at each row's first token. `np.exp(-x.sel(token=slice(0, None)).mean("token"))`
    is the perplexity of the responses.

    >>> logprobs(model, runs).dims
    ('prompt', 'token')
    """
    budget = token_budget or batching.default_budget(model, parts=2)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    real = transcripts.token_id.transpose("prompt", "token").values >= 0
    filled = np.full(real.shape, np.nan, np.float32)
    for rows, values in batching.over(plan, lambda rows: _logprobs(model, transcripts, rows)):
        for row, scores in zip(rows, values, strict=True):
            filled[row, real[row]] = scores
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "ids": ids_hash(transcripts),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    array = wrap(filled[:, :, None, None], transcripts, [0])
    array = array.isel(layer=0, dim=0, drop=True).rename("logprob")
    return stamp(array, made_with)


def next_logprobs(
    model: TransformersModel,
    transcripts: xr.Dataset,
    ids: Sequence[int],
    *,
    token_budget: int | None = None,
) -> xr.DataArray:
    """The natural log-probability that each row goes on with each of some ids: (prompt, id).

    >>> next_logprobs(model, tk.encode(model, ["Is snow white?"]), [12, 34]).dims
    ('prompt', 'id')
    """
    budget = token_budget or batching.default_budget(model)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    filled = np.full((transcripts.sizes["prompt"], len(ids)), np.nan)
    for rows, values in batching.over(plan, lambda rows: _next(model, transcripts, rows)):
        filled[rows] = values[:, list(ids)].cpu().numpy()
    coords = {"prompt": ids_of(transcripts), "id": list(ids)}
    array = xr.DataArray(filled, coords, dims=("prompt", "id"), name="logprob")
    return stamp(array, {**read(transcripts), **model_provenance(model)})


def next_tokens(
    model: TransformersModel,
    transcripts: xr.Dataset,
    *,
    top: int = 10,
    token_budget: int | None = None,
) -> xr.Dataset:
    """The likeliest tokens that each row goes on with: over (prompt, top), likeliest first.

    `id`, `text` and `logprob` (nats).

    Errors: `ValueError` for more tokens than the vocabulary has, or none.

    >>> next_tokens(model, tk.encode(model, ["Is snow white?"]), top=3).sizes["top"]
    3
    """
    budget = token_budget or batching.default_budget(model)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    shape = (transcripts.sizes["prompt"], top)
    scores, ids = np.full(shape, np.nan), np.full(shape, -1)
    for rows, values in batching.over(plan, lambda rows: _next(model, transcripts, rows)):
        if not 0 < top <= values.shape[1]:
            raise InputError(
                f"The {top} likeliest tokens were asked for; the vocabulary has {values.shape[1]}. "
                "Give 1 or more, and no more than that."
            )
        best = values.topk(top)
        scores[rows], ids[rows] = best.values.cpu().numpy(), best.indices.cpu().numpy()
    named = {"id": ids, "text": token_texts(model.tokenizer, ids), "logprob": scores}
    coords = {"prompt": ids_of(transcripts), "top": np.arange(top, dtype=np.int32)}
    made = xr.Dataset({k: (("prompt", "top"), v) for k, v in named.items()}, coords)
    return stamp(made, {**read(transcripts), **model_provenance(model)})


def _next(model: TransformersModel, transcripts: xr.Dataset, rows: list[int]) -> torch.Tensor:
    made = batching.batch(model, transcripts, rows)
    options = remote_options(model)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        last = nnsight.save(head.read(model)[:, -1].float().log_softmax(-1))
    return last


def _logprobs(
    model: TransformersModel, transcripts: xr.Dataset, rows: list[int]
) -> list[np.ndarray]:
    made = batching.batch(model, transcripts, rows)
    ids = made.input_ids
    options = remote_options(model)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        saved = nnsight.save(head.of_next(head.read(model), ids))
    scores = saved.float().cpu()
    nan = torch.full((len(rows), 1), torch.nan)
    whole = torch.cat([nan, scores], 1)
    first = made.attention_mask.argmax(1)
    whole[torch.arange(len(rows)), first] = torch.nan
    mask = made.attention_mask.bool()
    return [whole[n][mask[n]].numpy() for n in range(len(rows))]


def expected_tokens(model: TransformersModel, transcripts: xr.Dataset) -> xr.DataArray:
    """In how many rows each token of the vocabulary is expected in the response: (id,).

    The sum of its probabilities over the positions of the response, whatever was said there, at
    most 1 a row.

    >>> expected_tokens(model, runs).dims
    ('id',)
    """
    budget = batching.default_budget(model, parts=4)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    sums = batching.over(plan, lambda rows: _expected(model, transcripts, rows))
    counts = np.sum([part for _, part in sums], axis=0)
    array = xr.DataArray(counts, {"id": np.arange(len(counts))}, dims="id", name="expected")
    return stamp(array, {**read(transcripts), **model_provenance(model)})


def _expected(model: TransformersModel, transcripts: xr.Dataset, rows: list[int]) -> np.ndarray:
    made = batching.batch(model, transcripts, rows)
    columns = torch.arange(made.input_ids.shape[1])
    # the logits at a position are of the next token: from the last prompt token on
    where = (columns >= made.starts[:, None] - 1) & made.attention_mask.bool()
    where[:, -1] = False
    options = remote_options(model)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        logits = head.read(model)
        mask = where.to(logits.device)[..., None]
        sums = (logits.float().softmax(-1) * mask).sum(1).clamp(max=1.0).sum(0)
        saved = nnsight.save(sums)
    return saved.cpu().numpy()


def unembed(model: TransformersModel, array: xr.DataArray, top: int = 10) -> xr.Dataset:
    """The tokens that directions or residuals promote: the logit lens.

    `array` (…, dim) takes the place of the last block's output: the final norm, the output head
    and any softcap or scale around it are the model's own. Returns a Dataset over (…, top):
    `promoted` (text) and `logit`, the `top` largest first.
    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).

    Errors: `ValueError` for an array of another width, for a remote model, whose head is not
    here, and for a model whose logits are not made of the last block's output alone.

    >>> unembed(model, vectors.sel(layer=12)).sizes["top"]
    10
    """
    outer = [dim for dim in array.dims if dim != "dim"]
    _refuse_unfit(model, array)
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
    model: TransformersModel, array: xr.DataArray, tokens: Sequence[str | int]
) -> xr.Dataset:
    """How likely some tokens are at every place of residuals, read through the model's own head.

    `array` (…, dim) takes the place of the last block's output, as for `unembed`. `tokens` are
    texts of one token each (" Paris"), or ids. Returns a Dataset over (…, choice): `logprob`
    (nats, NaN in holes) and `token_rank` among the vocabulary (0 is the likeliest, −1 in holes).
    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).

    Errors: `ValueError` for a text that is no single token (its pieces are named), for a token
    given twice, and as `unembed`.

    >>> logit_lens(model, traces, [" the", " a"]).logprob.dims
    ('prompt', 'token', 'layer', 'choice')
    """
    outer = [dim for dim in array.dims if dim != "dim"]
    _refuse_unfit(model, array)
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


def _refuse_unfit(model: TransformersModel, array: xr.DataArray) -> None:
    if origin(model).remote is True:
        raise InputError(
            f"unembed needs the output head of {origin(model).name}, which is on the server. "
            "Save model.lm_head(model.norm(…)) in a trace, or load the model here."
        )
    refused = origin(model).refused.get("unembed")
    if refused is not None:
        raise InputError(f"unembed was asked for, but {refused}")
    width = model._module.config.get_text_config().hidden_size
    if array.sizes.get("dim") != width:
        raise InputError(
            f"unembed was given an array of sizes {dict(array.sizes)}; this model's residual "
            f"stream has {width} dims. Use an array of this model."
        )
