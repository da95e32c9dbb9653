"""How a metric depends on each residual: gradients, alone, times input, or along a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError, brief
from tracekit.model import sites
from tracekit.model.load import model_provenance
from tracekit.model.record import remote_options
from tracekit.passes import batching
from tracekit.passes.forward import flat_index
from tracekit.passes.labelling import wrap
from tracekit.passes.readouts import metrics
from tracekit.passes.readouts.path import along, baselines
from tracekit.passes.starting import put, value
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp, vectors_hash
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.selection import Tokens, kept_tokens

# every block's activations are kept for the way back
KEPT_ACTIVATIONS = 8


def gradients(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    metric: metrics.Metric | None = None,
    towards: str | None = None,
    against: str | None = None,
    tokens: Tokens = "response",
    times_input: bool = False,
    steps: int | None = None,
    baseline: xr.DataArray | None = None,
    token_budget: int | None = None,
) -> xr.DataArray:
    """What raises a metric: its gradient, (prompt, token, layer, dim), per residual unit.

    With respect to the residual stream after each block (−1: the embedding output; every block by
    default), at `tokens` as in `capture`; NaN in holes. `metric` is one number a row:

    - `towards` and `against`: ln p of one next word over another's, in nats; with a pair for
      each row `metric=logit_difference(model, [...], [...])`;
    - a function of the logits (row, vocabulary) after each row's last token to (row); if it takes
      a second argument, that is the rows' places among the prompts (row);
    - `"logprob"`: the log-probability of the response's own ids, in nats;
    - a direction (dim) with its `layer`: the mean projection of the response on it (of a prompt
      alone, of its last token).

    `times_input` multiplies by the residual itself. `steps` integrates the gradient of each layer
    along the straight line from `baseline` (traces at these tokens; without one, 0) to the
    residual, all tokens of the layer at once; with `times_input` (then: residual − baseline) the
    sum over tokens and dims is the metric's whole change.
    Source: integrated gradients, arXiv:1703.01365.

    Errors: `ValueError` for layers and tokens that are not there or come after the probe's layer,
    a metric of another shape, words that begin with the same token, and a baseline that lacks
    tokens or is of another model or site.

    >>> gradients(model, runs, towards="Yes", against="No").dims
    ('prompt', 'token', 'layer', 'dim')
    """
    asked = _Asked(
        judge=metrics.judge(model, transcripts, _metric(model, metric, towards, against)),
        layers=sites.check_layers(model, listed(layers), "residual"),
        times_input=times_input,
        steps=steps,
    )
    asked.require()
    if baseline is not None and steps is None:
        raise InputError("baseline= is where a path begins; give steps= too, such as steps=16.")
    kept = kept_tokens(transcripts, tokens)
    begins = baselines(model, baseline, transcripts, kept, asked.layers)
    budget = token_budget or batching.default_budget(model, parts=KEPT_ACTIVATIONS)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    width = model._module.config.get_text_config().hidden_size
    filled = np.full((*kept.shape, len(asked.layers), width), np.nan, np.float32)
    for rows, values in batching.over(
        plan, lambda rows: _of_batch(model, transcripts, kept, begins, rows, asked)
    ):
        inner, columns = np.nonzero(kept[rows])
        filled[np.asarray(rows)[inner], columns] = values
    words = {"towards": towards, "against": against}
    path = {} if begins is None else {"baseline": vectors_hash((), asked.layers, begins[kept])}
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "ids": ids_hash(transcripts),
        "gradient": {
            **(words if metric is None else {"metric": asked.judge.name}),
            **asked.how(),
            **path,
        },
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    array = wrap(filled, transcripts, asked.layers).isel(token=kept.any(0))
    return stamp(array.rename("gradient"), made_with)


@dataclass(frozen=True)
class _Asked:
    judge: metrics.Judge
    layers: list[int]
    times_input: bool
    steps: int | None

    def require(self) -> None:
        require_before(self.judge, self.layers)
        require_steps(self.steps)

    def how(self) -> dict[str, int]:
        made = {"times_input": int(self.times_input), "steps": self.steps or 0}
        return {name: value for name, value in made.items() if value}


def require_steps(steps: int | None) -> None:
    """Errors: `ValueError` for a path of no steps."""
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps} was asked for; give 1 or more, such as 16, or None.")


def require_before(judge: metrics.Judge, layers: Sequence[int]) -> None:
    """Errors: `ValueError` for layers that a probe's layer comes before."""
    after = [layer for layer in layers if judge.layer is not None and layer > judge.layer]
    if after:
        raise InputError(
            f"Layers {after} were asked for, and the probe reads layer {judge.layer}, which does "
            f"not depend on them. Give layers up to {judge.layer}."
        )


def _metric(
    model: TransformersModel,
    metric: metrics.Metric | None,
    towards: str | None,
    against: str | None,
) -> metrics.Metric:
    if metric is not None and towards is None and against is None:
        return metric
    if metric is None and towards is not None and against is not None:
        return metrics.logit_difference(model, towards, against)
    raise InputError(
        f"gradients was given metric={brief(metric)}, towards={towards!r} and "
        f"against={against!r}. Give a metric, or both words and no metric."
    )


def _of_batch(
    model: TransformersModel,
    transcripts: xr.Dataset,
    kept: np.ndarray,
    begins: np.ndarray | None,
    rows: list[int],
    asked: _Asked,
) -> Float[np.ndarray, "kept layer dim"]:
    chosen = transcripts.isel(prompt=rows)
    made = batching.batch(model, chosen)
    index, _ = flat_index(model, chosen, kept[rows], made)
    places, layers = torch.as_tensor(rows), asked.layers
    result = backward(model, made, places, asked.judge, layers, "residual")
    at = index.to(result.values[0].device)
    own = [one.flatten(0, 1)[at].float() for one in result.values]
    slopes = [slope.flatten(0, 1)[at].float() for slope in result.slopes]
    ends = [torch.zeros_like(one) for one in own]
    if begins is not None:
        stored = torch.as_tensor(begins[rows][kept[rows]]).to(at.device)
        ends = [stored[:, n].to(one) for n, one in enumerate(own)]
    if asked.steps is not None:
        slopes = along(model, made, places, asked.judge, layers, at, (ends, own), asked.steps)
    if asked.times_input:
        triples = zip(slopes, own, ends, strict=True)
        slopes = [slope * (one - end) for slope, one, end in triples]
    return torch.stack([slope.cpu() for slope in slopes], 1).numpy()


@dataclass(frozen=True)
class Backward:
    """By layer (row, column, dim): the values at a site, the metric's gradient; a number a row."""

    values: list[torch.Tensor]
    slopes: list[torch.Tensor]
    scores: Float[torch.Tensor, row]


def backward(
    model: TransformersModel,
    made: Batch,
    rows: torch.Tensor,
    judge: metrics.Judge,
    layers: Sequence[int],
    site: str,
) -> Backward:
    """One forward and its way back: each row's metric, with respect to a site of each layer."""
    options = {"use_cache": False, **judge.options(model), **remote_options(model)}
    with torch.enable_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        saved = nnsight.save(list(_slopes(model, made, rows, judge, layers, site)))
    values, slopes, scores = saved
    return Backward(values, slopes, scores)


def _slopes(
    model: TransformersModel,
    made: Batch,
    rows: torch.Tensor,
    judge: metrics.Judge,
    layers: Sequence[int],
    site: str,
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    values, residual = {}, None
    for layer in sorted({*layers, *([] if judge.layer is None else [judge.layer])}):
        if layer in layers:
            values[layer] = value(model, layer, site)
            # the weights need no gradients: the graph begins at the first value asked for
            values[layer].requires_grad_()
            if site == "heads":
                # a view of what the projection reads, which would not know it
                put(model, layer, site, values[layer])
        if layer == judge.layer:
            residual = sites.read(model, layer, "residual")
    scores = judge.read(model, made, rows, residual)
    ordered = [values[layer] for layer in layers]
    slopes = list(torch.autograd.grad(scores.sum(), ordered))
    return [one.detach() for one in ordered], slopes, scores.detach()
