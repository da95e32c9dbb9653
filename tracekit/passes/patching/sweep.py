"""Activation patching: each place of a run by itself gets the activation of another run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from nnsight import TransformersModel

from tracekit.edits.positions import rows_of
from tracekit.model import head, sites
from tracekit.model.load import device_of
from tracekit.model.record import origin
from tracekit.passes import batching
from tracekit.passes.patching.pair import Group, Pairs, ask
from tracekit.passes.readouts.metrics import Judge, Metric
from tracekit.passes.starting import Start, begin, put, skips, value
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.selection import Tokens

# tokens of a forward of patched rows on a CPU; of one that takes no deeper layer's rows, which
# would begin lower than they need
CPU_BUDGET, LEAST = 1024, 256
Sources = dict[tuple[str, int], torch.Tensor]


def activation_patching(
    model: TransformersModel,
    runs: xr.Dataset,
    sources: xr.Dataset,
    *,
    metric: Metric,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = "all",
    source_tokens: Tokens | None = None,
    sites: str | Sequence[str] = "residual",
    token_budget: int | None = None,
) -> xr.DataArray:
    """The metric of `runs` when one activation is that of `sources`: (site, layer, token, prompt).

    For each site ("residual", "attention", "mlp"; "heads": each one by itself, `head 0` …), layer
    and token by itself. The n-th run is
    paired with the n-th source, and the n-th of its `tokens` with the n-th of `source_tokens` (the
    same labels by default); with a mask, such as `find` returns, `token` counts from 0 and
    `target_token` and `source_token` are the labels. `metric` is one number a row, as in
    `gradients`. `unpatched` and `source` are the metric of both runs themselves, so that
    `(found - found.unpatched) / (found.source - found.unpatched)` is the share that one place
    carries over. Corrupted runs with clean sources denoise, clean runs with corrupted sources
    noise. Rows of many places run in one forward, which begins at the first layer that they
    patch. Source: arXiv:2202.05262; arXiv:2404.15255 on both directions.

    Errors: `ValueError` for unequal numbers of prompts or of tokens, for layers, sites and tokens
    that are not there, and for a metric of another shape.

    >>> asked, other = (tk.encode(model, [f"{x} is in"], template="raw") for x in ("Rome", "Paris"))
    >>> metric = tk.logit_difference(model, " Italy", " France")
    >>> activation_patching(model, asked, other, metric=metric, layers=[4, 8]).dims
    ('site', 'layer', 'token', 'prompt')
    """
    asked = ask(model, runs, sources, metric, layers, tokens, source_tokens, sites)
    shape = (len(asked.sites), len(asked.layers), *asked.places.at.shape)
    values, scores = np.full(shape, np.nan), np.full((2, shape[2]), np.nan)
    # a group keeps what its rows begin from, and the sources' values
    kept = (asked.layers[-1] + 1 + len(asked.sites) * len(asked.layers)) * asked.token_bytes
    skipping = None
    for group in asked.groups(kept, parts=2):
        taken, scores[1, group.prompts] = group.sources()
        start, scores[0, group.prompts] = _start(asked, group, skipping)
        skipping = start.skips
        for n, site in enumerate(asked.sites):
            for cells, found in _patched(asked, group, start, site, taken, token_budget):
                row, layer, place = cells.T
                values[n, layer, group.prompts[row], place] = found
    return asked.labelled(values, scores, "activation_patching", {})


def _start(asked: Pairs, group: Group, skipping: bool | None) -> tuple[Start, torch.Tensor]:
    """What a group's rows begin from, and the metric of its runs as they are."""
    model, made, judge, rows = asked.model, group.made, asked.judge, group.rows
    options = {"use_cache": False, **judge.options(model)}
    depth = max(asked.layers[-1], judge.layer or 0) + 1
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs, **options):
        residuals = nnsight.save([])
        for layer in range(depth):
            residuals.append(_read(model, layer))
        read = None if judge.layer is None else residuals[judge.layer]
        scores = nnsight.save(judge.read(model, made, rows, read))
        logits = nnsight.save(head.read(model)[:, -1])
    if skipping is None:
        skipping = skips(model, made, residuals, logits)
    return Start(made, residuals, skipping), scores


def _read(model: TransformersModel, layer: int) -> torch.Tensor:
    return sites.read(model, layer, "residual")


def _patched(
    asked: Pairs,
    group: Group,
    start: Start,
    site: str,
    taken: Sources,
    budget: int | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The cells (row, layer, place) of a few forwards, and the metric of each."""
    size = max((budget or _budget(asked.model)) // start.made.input_ids.shape[1], 1)
    least = max(LEAST // start.made.input_ids.shape[1], 1)
    for chunk in _chunks(group.there.numpy(), len(asked.layers), size, least):
        forward = partial(_forward, asked, group, start, site, taken, chunk)
        for part, found in batching.run(range(len(chunk)), forward):
            yield chunk[list(part)], found.cpu().numpy()


def _chunks(
    there: Bool[np.ndarray, "row place"], layers: int, size: int, least: int
) -> Iterator[Int[np.ndarray, "cell 3"]]:
    """Cells of up to `size` rows a forward; one that has `least` takes none of a deeper layer."""
    places, rows = np.argwhere(there), []
    for layer in range(layers):
        rows += [(row, layer, place) for row, place in places]
        while len(rows) >= size:
            yield np.array(rows[:size])
            rows = rows[size:]
        if len(rows) >= least:
            yield np.array(rows)
            rows = []
    if rows:
        yield np.array(rows)


def _budget(model: TransformersModel) -> int:
    if device_of(model).type == "cuda" or "padding" in origin(model).refused:
        return batching.default_budget(model, parts=2)
    return CPU_BUDGET


@dataclass(frozen=True)
class _Patch:
    """What one forward puts where: by layer, the rows, their columns and their new values."""

    site: str
    layers: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

    def into(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        rows, columns, new = self.layers[layer]
        value = value.clone()
        value[rows, columns] = new.to(value)
        return value


def _forward(
    asked: Pairs,
    group: Group,
    start: Start,
    site: str,
    taken: Sources,
    chunk: Int[np.ndarray, "whole 3"],
    part: Sequence[int],
) -> Float[torch.Tensor, cell]:
    cells = chunk[list(part)]
    row, place = torch.as_tensor(cells[:, 0]), torch.as_tensor(cells[:, 2])
    patches = {}
    for n in np.unique(cells[:, 1]):
        mine, layer = torch.as_tensor(np.flatnonzero(cells[:, 1] == n)), asked.layers[n]
        new = taken[site, layer][row[mine], place[mine]]
        patches[layer] = (mine, group.at[row[mine], place[mine]], new)
    made = start.made
    batch = Batch(
        made.input_ids[row],
        made.attention_mask[row],
        made.starts[row],
        tuple(made.prompts[n] for n in row.tolist()),
    )
    first = min(patches) - (site != "residual")
    below = start.residuals[first][row] if start.skips and first >= 0 else None
    model, judge = asked.model, asked.judge
    options = {"use_cache": False, **judge.options(model)}
    where, patch = group.rows[row], _Patch(site, patches)
    with torch.no_grad(), rows_of(model, batch), model.trace(batch.model_inputs, **options):
        scores = nnsight.save(_run(model, batch, where, judge, patch, first, below))
    return scores


def _run(
    model: TransformersModel,
    batch: Batch,
    rows: torch.Tensor,
    judge: Judge,
    patch: _Patch,
    first: int,
    below: torch.Tensor | None,
) -> torch.Tensor:
    """Inside a trace: from block `first` on, each patch in its layer, then the metric."""
    rest, residual = sorted(patch.layers), None
    if below is not None:
        if first in patch.layers and patch.site == "residual":
            below, rest = patch.into(first, below), rest[1:]
        begin(model, first, below, True)
        residual = below if first == judge.layer else None
    for layer in rest:
        new = patch.into(layer, value(model, layer, patch.site))
        put(model, layer, patch.site, new)
    if judge.layer is not None and residual is None:
        last = rest and rest[-1] == judge.layer and patch.site == "residual"
        residual = new if last else sites.read(model, judge.layer, "residual")
    return judge.read(model, batch, rows, residual)
