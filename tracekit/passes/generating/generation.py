"""Batched generation that keeps the ids."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel
from transformers import GenerationConfig

from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import distributed, head
from tracekit.model.load import device_of, model_provenance
from tracekit.model.record import origin, remote_options
from tracekit.passes import batching
from tracekit.passes.generating.decoding import (
    READING_IDS,
    config,
    end_ids,
    only,
    require_amounts,
    require_decoding,
)
from tracekit.passes.generating.one_query import one_query
from tracekit.passes.generating.shared_prompts import shared
from tracekit.passes.generating.stepping import quick_steps, require_steps, shared_steps
from tracekit.passes.generating.watching import Said, Watch
from tracekit.progress import Bar
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import assemble, context_length, ids_of
from tracekit.transcripts.labels import require_names
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.kept_ids import spoken_roles


def generate(
    model: TransformersModel,
    transcripts: xr.Dataset,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    monitor: xr.Dataset | None = None,
    stop: bool | float | int = False,
    transfer: bool = False,
    token_budget: int | None = None,
    progress: bool = True,
    **decoding: Any,
) -> xr.Dataset:
    """The transcripts with what the model says next: a Dataset over (prompt, token), ids kept.

    Greedy by default: the argmax of the model's logits, whatever its generation_config.json says.
    With `temperature` > 0, `samples` rows a prompt are drawn from softmax(logits / temperature),
    named `<id>#<k>` and sharing `group`; `seed` and the batch plan fix them. What else shall
    change the choice of a token is given by its name in transformers (`decoding`:
    `repetition_penalty`, `no_repeat_ngram_size`, `suppress_tokens`, `min_new_tokens`, …; when
    sampling also `top_p`, `top_k`, `min_p`, …) and recorded. A response that is there already is
    kept and continued, unless it has ended. Each response ends with its end-of-turn id, or after
    `max_new_tokens`.

    With a `monitor`, a probe (of `traits.fit`; `transfer=True` where it is of other weights), the
    result has what the probe says at each step too: `score` and `score_so_far` (prompt, token),
    float32 in the probe's units, of each token and of the response up to it by the probe's own
    pooling; without the last token of each row, which was sampled and never went through the
    model. `stop=True` ends a row when its score so far is over the probe's threshold, a number
    when it is over that: the token that passed is the response's last, and `stopped` (prompt)
    says so. Else the ids are those of a generation without monitor, within rounding: nothing is
    shared between rows then.

    Errors: `ValueError` for settings out of range or without effect, for a row that would outgrow
    the model's context, for a model whose steps say something else than its forwards, and for a
    probe that does not fit the model, or has no threshold to stop at.

    >>> runs = generate(model, tk.encode(model, ["Where is Paris?"]), max_new_tokens=20)
    >>> int(runs.token.max())
    19
    >>> watched = generate(model, runs, max_new_tokens=2, monitor=probe, stop=1e9)
    >>> watched.score_so_far.dims, bool(watched.stopped.any())
    (('prompt', 'token'), False)
    """
    require_amounts(max_new_tokens, temperature, samples, decoding)
    watch = _watch(model, monitor, stop, transfer)
    require_decoding(decoding, temperature, inspect.signature(generate).parameters)
    made_config = config(model, max_new_tokens, temperature, decoding)
    rows = _repeated(transcripts, samples)
    _refuse_outgrown(model, rows, max_new_tokens)
    _labels(rows)  # what cannot be kept is refused before anything runs
    require_steps(model, _steps)
    lengths = tensors.lengths(rows)
    budget = distributed.agreed(model, token_budget or batching.decoding_budget(model))
    rank, ranks = distributed.share(model)
    padded = not set(decoding) & set(READING_IDS)
    ended = _ended(model, rows)
    # a monitor reads what has ended too
    done = ended & (watch is None)
    going = np.flatnonzero(~done)
    asked = (lengths[going] + max_new_tokens).tolist()
    plan = batching.plan(asked, budget, padded, batching.DECODING_ALIKE)
    plan = [going[part].tolist() for part in plan]
    said = {row: Said([]) for row in np.flatnonzero(done).tolist()}
    bar = Bar(total=len(going), unit="row", desc="generate", disable=not progress, leave=False)
    with bar:
        for number, batch in list(enumerate(plan))[rank::ranks]:
            for part, new in batching.run(
                batch,
                functools.partial(_said, model, rows, made_config, seed + number, watch, ended),
            ):
                said.update(zip(part, new, strict=True))
                bar.update(len(part))
    said = {row: new for mine in distributed.gathered(model, said) for row, new in mine.items()}
    each = [said[n] for n in range(len(lengths))]
    drawn = {"temperature": temperature, "samples": samples, "seed": seed} if temperature else {}
    made = {
        "by": {k: v for k, v in model_provenance(model).items() if k != "versions"},
        "max_new_tokens": max_new_tokens,
        "batches": {"budget": budget, "plan": digest(plan)},
        **drawn,
        **({"decoding": decoding} if decoding else {}),
        **({} if watch is None else {"monitor": watch.described()}),
    }
    runs = _extended(model, rows, [row.ids for row in each], made)
    return runs if watch is None else watch.labelled(runs, each)


def _watch(
    model: TransformersModel, monitor: xr.Dataset | None, stop: bool | float, transfer: bool
) -> Watch | None:
    if monitor is None:
        if stop is not False or transfer:
            raise InputError(
                f"stop={stop} and transfer={transfer} were asked for without a monitor. Give a "
                "probe (monitor=), or leave them out."
            )
        return None
    return Watch(model, monitor, stop, transfer)


def _said(
    model: TransformersModel,
    rows: xr.Dataset,
    made_config: GenerationConfig,
    seed: int,
    watch: Watch | None,
    ended: np.ndarray,
    part: Sequence[int],
) -> list[Said]:
    made = batching.batch(model, rows, part)
    ends = set(end_ids(model))
    new = [_until_end(ids, ends) for ids in _continued(model, made, made_config, seed, watch)]
    new = [[] if ended[row] else ids for row, ids in zip(part, new, strict=True)]
    return [Said(ids) for ids in new] if watch is None else watch.said(made, new)


def _steps(
    model: TransformersModel, batch: Batch, count: int, share: bool = False
) -> torch.Tensor | None:
    """The logits of each row's next tokens: (row, step, vocabulary).

    With `share` what the rows begin with is read once; None where it cannot be.
    """
    batch, cache = shared(model, batch, count, lambda: True) if share else (batch, None)
    if share and cache is None:
        return None
    settings = config(model, count, 0.0, {})
    # no id ends it: told to go on (min_new_tokens), it would choose others than the logits say
    settings.eos_token_id = None
    options: dict[str, Any] = {"generation_config": settings}
    options |= {} if cache is None else {"past_key_values": cache}
    with (
        torch.no_grad(),
        rows_of(model, batch),
        only(model._module, settings),
        model.generate(batch.model_inputs, **options) as tracer,
    ):
        kept = nnsight.save([])
        for _ in tracer.iter[:count]:
            kept.append(head.read(model)[:, -1].float())
    return torch.stack(list(kept), 1).cpu()


def _continued(
    model: TransformersModel,
    made: Batch,
    made_config: GenerationConfig,
    seed: int,
    watch: Watch | None = None,
) -> list[list[int]]:
    options: dict[str, Any] = {"generation_config": made_config, **remote_options(model)}
    if watch is not None:
        model = watch.model
        options |= {} if watch.limit is None else {"stopping_criteria": [watch]}
    holes = functools.partial(shared_steps, model, functools.partial(_steps, share=True))
    more = made_config.max_new_tokens or 0
    module, here = model._module, device_of(model).type == "cpu" and not origin(model).remote
    strided = here and module._supports_logits_to_keep()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # the generator is the process's own: it is drawn from, and put back, while no one else runs
    quick = one_query(model, quick_steps(model, _steps))
    with torch.no_grad(), rows_of(model, made), quick, torch.random.fork_rng(devices):
        made, cache = (made, None) if watch else shared(model, made, more, holes)
        options |= {} if cache is None else {"past_key_values": cache}
        torch.manual_seed(seed)
        with only(module, made_config), model.generate(made.model_inputs, **options) as tracer:
            if strided:
                # transformers slices the last position out of the prompt's: a strided view, which
                # torch multiplies row by row on a CPU (in bfloat16, 20 s for 64 rows)
                model.lm_head.input = model.lm_head.input.contiguous()
            result = tracer.result.save()
    return result[:, made.input_ids.shape[1] :].tolist()


def _ended(model: TransformersModel, rows: xr.Dataset) -> np.ndarray:
    """Which rows have a response that ends with an end-of-turn id."""
    ids = rows.token_id.sel(token=slice(0, None)).transpose("prompt", "token").values
    last = [row[row >= 0][-1:] for row in ids]
    return np.array([bool(np.isin(one, end_ids(model)).any()) for one in last])


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    for n, token in enumerate(ids):
        if token in ends:
            return ids[: n + 1]
    return ids


def _extended(
    model: TransformersModel, rows: xr.Dataset, said: list[list[int]], made: dict[str, Any]
) -> xr.Dataset:
    raw = read(rows)["template"] == "raw"
    ids, roles = rows.token_id.values, rows.role.values
    before = rows.token.values < 0
    prompts: list[tuple[list[int], list[str]]] = []
    responses: list[tuple[list[int], list[str]]] = []
    for row, new in zip(range(len(ids)), said, strict=True):
        for where, out in ((before, prompts), (~before, responses)):
            real = where & (ids[row] >= 0)
            out.append((ids[row][real].tolist(), roles[row][real].tolist()))
        begun, kinds = responses[-1]
        whole = begun + new  # a thought may have begun before
        responses[-1] = (whole, kinds + spoken_roles(model.tokenizer, whole, raw)[len(begun) :])
    provenance = {**read(rows), "text": made}
    extended = assemble(model.tokenizer, _prompts(rows), prompts, responses, provenance)
    return extended.assign(text=rows.text)


def _prompts(rows: xr.Dataset) -> list[Prompt]:
    labels = _labels(rows)
    return [
        Prompt(
            id=name,
            text=str(rows.text.values[n]) or " ",
            group=str(rows["group"].values[n]),
            labels={label: values[n] for label, values in labels.items()},
        )
        for n, name in enumerate(ids_of(rows))
    ]


def _labels(rows: xr.Dataset) -> dict[str, list[Any]]:
    """The prompts' own labels, as plain values (strings of a file are objects)."""
    fixed = {"prompt", "group", "prompt_length"}
    labels = {
        str(name): coord.values.tolist()
        for name, coord in rows.coords.items()
        if coord.dims == ("prompt",) and name not in fixed
    }
    require_names(labels, "The transcripts")
    return labels


def _repeated(transcripts: xr.Dataset, samples: int) -> xr.Dataset:
    if samples == 1:
        return transcripts
    order = np.repeat(np.arange(transcripts.sizes["prompt"]), samples)
    names = [f"{name}#{k}" for name in ids_of(transcripts) for k in range(samples)]
    return transcripts.isel(prompt=order).assign_coords(prompt=names)


def _refuse_outgrown(model: TransformersModel, rows: xr.Dataset, more: int) -> None:
    limit, lengths = context_length(model), tensors.lengths(rows)
    longest = int(lengths.argmax())
    if lengths[longest] + more > limit:
        raise InputError(
            f"The prompt {ids_of(rows)[longest]!r} has {lengths[longest]} tokens; with "
            f"{more} new ones it outgrows this model's context of {limit}. Ask for fewer."
        )
