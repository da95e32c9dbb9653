"""A metric of every row of transcripts, by a model as it is or as it was edited."""

from __future__ import annotations

import nnsight
import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.positions import rows_of
from tracekit.model import sites
from tracekit.model.load import model_provenance
from tracekit.model.record import remote_options
from tracekit.passes import batching
from tracekit.passes.readouts import metrics
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors


def measure(
    model: TransformersModel,
    transcripts: xr.Dataset,
    metric: metrics.Metric,
    *,
    token_budget: int | None = None,
) -> xr.DataArray:
    """The metric of each row: (prompt), with the rows' own labels.

    `metric` as in `gradients`: `tk.logit_difference`, a function of the logits (row, vocabulary)
    after each row's last token to (row), `"logprob"`, or a direction (dim) with its `layer`. An
    edited model is measured like any other, so that an ablation's effect is the difference of two.

    Errors: `ValueError` for a metric of another shape, or that does not fit the model or the rows.

    >>> measure(model, runs, tk.logit_difference(model, " Yes", " No")).dims
    ('prompt',)
    """
    judge = metrics.judge(model, transcripts, metric)
    budget = token_budget or batching.default_budget(model, parts=2)
    plan = batching.plan(tensors.lengths(transcripts).tolist(), budget)
    filled = np.full(transcripts.sizes["prompt"], np.nan, np.float32)
    for rows, values in batching.over(plan, lambda rows: _scores(model, transcripts, rows, judge)):
        filled[rows] = values.cpu().numpy()
    coords = {name: c for name, c in transcripts.coords.items() if c.dims == ("prompt",)}
    made = {**read(transcripts), **model_provenance(model), "metric": judge.name}
    return stamp(xr.DataArray(filled, coords, dims=("prompt",), name="metric"), made)


def _scores(
    model: TransformersModel, transcripts: xr.Dataset, rows: list[int], judge: metrics.Judge
) -> torch.Tensor:
    made = batching.batch(model, transcripts, rows)
    options = {"use_cache": False, **judge.options(model), **remote_options(model)}
    places = torch.as_tensor(rows)
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        residual = None if judge.layer is None else sites.read(model, judge.layer, "residual")
        saved = nnsight.save(judge.read(model, made, places, residual))
    return saved
