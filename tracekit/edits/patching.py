"""Patching: stored traces of another arm in place of the model's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed, require_blocks, require_fit, require_layers, source
from tracekit.edits.directions import Direction, hashed
from tracekit.edits.edit import edit
from tracekit.edits.positions import Rows
from tracekit.errors import InputError
from tracekit.transcripts.selection import Selection, Tokens


def patch(
    model: TransformersModel,
    traces: xr.DataArray,
    *,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = "all",
    transfer: bool = False,
) -> TransformersModel:
    """A copy of the model whose residual stream is replaced by stored traces of the same ids.

    `traces` (prompt, token, layer, dim) as `capture` made them. Where they have a value for a
    row's prompt, token and layer, it takes the place of the model's own; elsewhere (other tokens,
    holes) nothing changes. Source: activation patching, arXiv:2202.05262.

    Errors: `ValueError` for traces that do not fit, are reduced or of another site, for a row that
    is not among them or whose ids are others, and for generated tokens, whose ids may be others:
    patch the prompt alone with `tokens=slice(None, -1)` when generating.

    >>> healed = patch(model, clean, layers=range(10, 20))
    """
    selection = Selection(tokens)
    _require_traces(traces)
    made = require_fit(model, traces, transfer=transfer, what="traces")
    chosen = listed(traces["layer"].values if layers is None else layers) or []
    require_blocks(model, chosen)
    require_layers(traces, chosen)
    stored = _Stored(traces.isel(token=selection.labels(traces["token"].values)))
    at = {layer: Direction(stored.values(layer)) for layer in chosen}

    def change(
        hidden: torch.Tensor, layer: int, where: torch.Tensor, rows: Rows | None
    ) -> torch.Tensor:
        return stored.put(at[layer].values, hidden, where, rows)

    return edit(model, "patch", chosen, change, tokens, vector=hashed(at), **made)


class _Stored:
    """Traces as a table, looked up by prompt and token label."""

    def __init__(self, traces: xr.DataArray) -> None:
        if "layer" not in traces.dims:
            traces = traces.expand_dims("layer")
        self.traces = traces.transpose("layer", "prompt", "token", "dim")
        self.axis = torch.tensor(traces["token"].values.astype(np.int64))
        self.place = {str(name): n for n, name in enumerate(traces["prompt"].values)}
        ids = traces["token_id"].transpose("prompt", "token").values
        self.ids = torch.tensor(ids.astype(np.int64))

    def values(self, layer: int) -> np.ndarray:
        return self.traces.sel(layer=layer).values

    def put(
        self,
        values: torch.Tensor,
        hidden: torch.Tensor,
        where: torch.Tensor,
        rows: Rows | None,
    ) -> torch.Tensor:
        if rows is None:
            raise InputError(
                "A patch ran in a raw model.trace, where no row's prompt is known. "
                "Use tk.generate or tk.capture."
            )
        order = torch.tensor([self._row(name) for name in rows.prompts])[:, None]
        columns = torch.searchsorted(self.axis, rows.labels.contiguous())
        columns = columns.clamp(max=len(self.axis) - 1)
        known = (self.axis[columns] == rows.labels) & (self.ids[order, columns] >= 0)
        self._require_ids(known & where[..., 0].cpu(), order, columns, rows)
        # looked up where the table lies: a GPU gets the batch, not the whole capture
        found = values[order, columns]
        known = known & ~found.isnan().any(-1)
        return torch.where(known[..., None].to(hidden.device), found.to(hidden), hidden)

    def _row(self, prompt: str) -> int:
        for name in (prompt, prompt.rpartition("#")[0]):
            if name in self.place:
                return self.place[name]
        raise InputError(
            f"patch has traces of {len(self.place)} prompts and none of {prompt!r}; capture it "
            "first."
        )

    def _require_ids(
        self, acts: torch.Tensor, order: torch.Tensor, columns: torch.Tensor, rows: Rows
    ) -> None:
        generated = acts & (rows.ids < 0)
        if bool(generated.any()):
            raise InputError(
                f"patch has traces of generated tokens (label {int(rows.labels[generated][0])}), "
                "whose ids may be others now. Patch the prompt alone with "
                "tokens=slice(None, -1), or replay fixed ids with tk.capture."
            )
        other = acts & (self.ids[order, columns] != rows.ids)
        if bool(other.any()):
            row, column = other.nonzero()[0].tolist()
            raise InputError(
                f"patch has traces of other ids: at prompt {rows.prompts[row]!r}, token "
                f"{int(rows.labels[row, column])}, the traces have the id "
                f"{int(self.ids[order[row, 0], columns[row, column]])} and the run "
                f"{int(rows.ids[row, column])}. Capture them on the same transcripts."
            )


def _require_traces(traces: xr.DataArray) -> None:
    needed = {"prompt", "token", "dim"}
    if set(traces.dims) - {"layer"} != needed or not {"token_id", "layer"} <= set(traces.coords):
        raise InputError(
            f"patch needs traces (prompt, token, layer, dim) with their token_id; these have the "
            f"dims {traces.dims} and the coordinates {sorted(map(str, traces.coords))}. "
            "Use what tk.capture returns without reduce= or vectors=."
        )
    site = (source(traces) or {}).get("site", "residual")
    if site != "residual":
        raise InputError(
            f"patch replaces the residual stream, and these traces are of the site {site!r}. "
            "Capture with site='residual'."
        )
