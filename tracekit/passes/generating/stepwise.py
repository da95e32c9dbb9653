"""Values captured while the model generates, step by step; replay on fixed ids is the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.positions import by_row, running_in
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.load import edits_of, model_provenance
from tracekit.model.record import end_edit
from tracekit.passes import coordinates
from tracekit.passes.forward import Work, refuse_nonfinite
from tracekit.passes.generating.generation import generate
from tracekit.passes.request import Site, ask
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import Tokens, kept_tokens


def capture_during(
    model: TransformersModel,
    transcripts: xr.Dataset,
    layers: int | Sequence[int] | None = None,
    *,
    site: Site = "residual",
    dims: Sequence[str] | None = None,
    tokens: Tokens = "response",
    nonfinite: str = "raise",
    **options: Any,
) -> tuple[xr.Dataset, xr.DataArray]:
    """What `generate(model, transcripts, **options)` gives, and each step's values in memory.

    The values are (prompt, token, layer, dim) as `capture` labels them, without the last token of
    each row: it was sampled and never went through the model. They agree with `capture` on the
    returned transcripts within rounding (a step sees one column, a replay all), and their
    provenance says `during: generation`.

    Errors: those of `generate` and `capture`.

    >>> asked = tk.encode(model, prompts)
    >>> runs, traces = capture_during(model, asked, [12], max_new_tokens=20)
    >>> int(runs.token.max()), int(traces.token.max())
    (19, 18)
    """
    _refuse_pattern(site)
    asked = ask(model, layers, site, tokens, nonfinite=nonfinite, dims=dims)
    coordinates.require_free(transcripts, asked)
    record = _Record(asked.layers[0], len(asked.axes))
    runs = generate(_watched(model, asked.layers, asked.site, record), transcripts, **options)
    made = read(runs)
    made["text"]["by"]["edits"] = edits_of(model)  # the one that reads changes nothing
    runs = stamp(runs, made)
    kept = kept_tokens(runs, tokens)
    real = runs.token_id.transpose("prompt", "token").values >= 0
    kept[np.arange(len(kept)), real.shape[1] - 1 - real[:, ::-1].argmax(1)] = False
    made_with = {
        **made,
        **model_provenance(model),
        **asked.described(),
        "batches": made["text"]["batches"],
        "during": "generation",
    }
    work = Work(model, runs, kept, asked, made_with, progress=False)
    return runs, _labelled(work, record)


def _refuse_pattern(site: Site) -> None:
    if site == "pattern":
        raise InputError(
            "site='pattern' was asked for while the model generates, where each step has other "
            "keys. Use tk.capture on the transcripts that tk.generate returned."
        )


@dataclass
class _Record:
    """Per batch (its prompts): the label of its first column, and per layer what each step had."""

    first_layer: int
    axes: int
    starts: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    steps: dict[tuple[str, ...], dict[int, list[torch.Tensor]]] = field(default_factory=dict)

    def note(self, module: torch.nn.Module, layer: int, step: int, value: torch.Tensor) -> None:
        running = running_in(module)
        assert running is not None  # generate says what is running
        value = by_row(module, value)
        rows = running.rows(step, value.shape[1])
        if step == 0 and layer == self.first_layer:
            # a batch that ran out of memory starts anew in halves
            for other in [names for names in self.steps if set(names) & set(rows.prompts)]:
                del self.steps[other]
            self.starts[rows.prompts] = rows.labels[:, 0]
            self.steps[rows.prompts] = {}
        new = value if step == 0 else value[:, -1:]  # without a cache, a step has all tokens so far
        new = new.flatten(2) if self.axes == 1 else new
        self.steps[rows.prompts].setdefault(layer, []).append(new.detach().cpu())


def _watched(
    model: TransformersModel, layers: list[int], site: sites.Site, record: _Record
) -> TransformersModel:
    with model.edit() as (tracer, watched):
        for step in tracer.iter[:]:
            for layer in layers:
                record.note(model._module, layer, step, sites.read(model, layer, site))
    end_edit(model, watched, {"kind": "read", "layers": layers})
    return watched


def _labelled(work: Work, record: _Record) -> xr.DataArray:
    columns = coordinates.axis(work)
    labels, kept = work.transcripts.token.values[columns], work.kept[:, columns]
    place = {name: n for n, name in enumerate(ids_of(work.transcripts))}
    filled: np.ndarray | None = None
    for prompts, steps in record.steps.items():
        values = torch.stack([torch.cat(steps[n], 1) for n in work.asked.layers], 2).float().numpy()
        if filled is None:
            filled = np.full((*kept.shape, *values.shape[2:]), np.nan, np.float32)
        for row, name in enumerate(prompts):
            where = kept[place[name]]
            filled[place[name], where] = values[
                row, labels[where] - int(record.starts[prompts][row])
            ]
    assert filled is not None
    if work.asked.nonfinite == "raise":
        seen = torch.as_tensor(filled[kept]).flatten(2)
        checks = [seen[:, n].sum(-1) for n in range(filled.shape[2])]
        refuse_nonfinite(work, list(range(len(kept))), checks)
    rows = coordinates.labels(work, range(len(kept)))
    named = coordinates.with_axes(rows, work.asked, filled.shape[3:], None)
    array = xr.DataArray(filled, dims=work.asked.dims, coords=named.coords, name=work.asked.name)
    return stamp(array, work.made_with)
