"""The traces that each trait vector was fitted on."""

from __future__ import annotations

import xarray as xr

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.run import Run
from experiments.audit.vectors import evaluation
from experiments.audit.vectors.fitting import with_chats
from traits import select_part


def fitted_traces(audit: Audit, trait: str) -> xr.DataArray:
    """The traces that a trait's vector was fitted on: (prompt, layer, dim)."""
    traces = tk.open(Run(audit.folder).story(trait))
    part, _ = evaluation.split(traces, audit.settings)
    if count := audit.settings.vectors.chat_pairs:
        written = tk.open(Run(audit.folder).written(trait))
        traces, part = with_chats(traces, part, written, count)
    return select_part(traces, part, "fit").sel(window=chosen_window(audit, trait))


def chosen_window(audit: Audit, trait: str) -> str:
    """The window of tokens that was chosen for a trait's vector."""
    return audit.evaluation["window_selected"].sel(trait=trait).item()
