"""Patching: stored traces, of another arm or of another prompt, in place of the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed, require_blocks, require_fit, require_layers
from tracekit.edits.compatibility import source as read_source
from tracekit.edits.directions import Direction, hashed
from tracekit.edits.edit import edit
from tracekit.edits.pairing import Found, Pairing
from tracekit.edits.positions import Rows
from tracekit.errors import InputError, brief
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import own_names
from tracekit.transcripts.selection import Selection, Tokens, are_labels, recorded

# where what one prompt has can be put into another: what a block adds, and the sum
SITES = ("residual", "attention", "mlp")


def patch(
    model: TransformersModel,
    traces: xr.DataArray,
    *,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = "all",
    at: Tokens | None = None,
    source: Tokens | None = None,
    prompts: Mapping[str, str] | None = None,
    transfer: bool = False,
) -> TransformersModel:
    """A copy of the model in which stored traces take the place of its own.

    `traces` (prompt, token, layer, dim) as `capture` made them, of the residual stream or of what
    attention or the mlp adds. Where they have a value for a row's prompt, token and layer, it
    takes the place of the model's own, if the ids are the same; elsewhere (other tokens, holes)
    nothing changes.

    Between two prompts `at` and `source` say which token goes where: the n-th of `at` in a row
    gets the n-th of `source` in the traces, whatever their ids. Each is a list of labels, a slice
    with both ends, or a mask of its own transcripts (`find`). A prompt takes the traces of its
    own id; else, with a mask, those in the same place, or of the one prompt there is; `prompts`
    says it outright (a run's id to the traces' id). Source: arXiv:2202.05262.

    Errors: `ValueError` for traces that do not fit, are reduced or of another site, for a row that
    is not among them; without a map, for a row whose ids are others, and for generated tokens,
    whose ids may be others: patch the prompt alone with `tokens=slice(None, -1)` when generating;
    with one, for `at` and `source` of unequal length, and tokens that the traces do not have.

    >>> healed = patch(model, clean, layers=range(10, 20))
    >>> moved = patch(model, clean, layers=[12], at=[-1], source=[-2])
    """
    _require_traces(traces)
    site = (read_source(traces) or {}).get("site", "residual")
    made = require_fit(model, traces, transfer=transfer, what="traces")
    chosen = listed(traces["layer"].values if layers is None else layers) or []
    require_blocks(model, chosen)
    require_layers(traces, chosen)
    if at is None and source is None and prompts is None:
        selection = Selection(tokens)
        stored = _Stored(traces.isel(token=selection.labels(traces["token"].values)))
    else:
        tokens, pairing, how = _mapped(traces, tokens, at, source, prompts)
        stored, made = _Stored(traces.sortby("token"), pairing), {**made, **how}
    at_layers = {layer: Direction(stored.values(layer)) for layer in chosen}

    def change(
        hidden: torch.Tensor, layer: int, where: torch.Tensor, rows: Rows | None
    ) -> torch.Tensor:
        return stored.put(at_layers[layer].values, hidden, where, rows)

    vector = hashed(at_layers)
    return edit(model, "patch", chosen, change, tokens, site=site, vector=vector, **made)


def _mapped(
    traces: xr.DataArray,
    tokens: Tokens,
    at: Tokens | None,
    source: Tokens | None,
    prompts: Mapping[str, str] | None,
) -> tuple[Tokens, Pairing, dict[str, str]]:
    """Where the edit acts, what goes there, and what its record says of it."""
    whole = isinstance(tokens, str) and tokens == "all"
    if at is None or source is None or not whole:
        raise InputError(
            f"patch was given at={brief(at)}, source={brief(source)} and tokens={brief(tokens)}. "
            "A map between prompts needs at= and source=, and no tokens=."
        )
    pairs = source
    if are_labels(at) and are_labels(source) and len(at) == len(source):
        # in the order of `at`, which is recorded as a set
        pairs = [int(source[n]) for n in np.argsort(at, kind="stable")]
    how = {"source_tokens": recorded(pairs, ordered=True), "prompts": digest(prompts)}
    return at, Pairing(traces.sortby("token"), at, source, prompts), how


class _Stored:
    """Traces as a table, looked up by prompt and token label, or by a map."""

    def __init__(self, traces: xr.DataArray, pairing: Pairing | None = None) -> None:
        if "layer" not in traces.dims:
            traces = traces.expand_dims("layer")
        self.traces = traces.transpose("layer", "prompt", "token", "dim")
        self.pairing = pairing
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
        found = self._same(where, rows) if self.pairing is None else self.pairing.found(rows)
        order, columns, known = found
        # looked up where the table lies: a GPU gets the batch, not the whole capture
        taken = values[order, columns]
        known = known & ~taken.isnan().any(-1)
        return torch.where(known[..., None].to(hidden.device), taken.to(hidden), hidden)

    def _same(self, where: torch.Tensor, rows: Rows) -> Found:
        """The rows' own prompts and tokens."""
        order = torch.tensor([self._row(name) for name in rows.prompts])[:, None]
        columns = torch.searchsorted(self.axis, rows.labels.contiguous())
        columns = columns.clamp(max=len(self.axis) - 1)
        known = (self.axis[columns] == rows.labels) & (self.ids[order, columns] >= 0)
        self._require_ids(known & where[..., 0].cpu(), order, columns, rows)
        return order, columns, known

    def _row(self, prompt: str) -> int:
        for name in own_names(prompt):
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
    site = (read_source(traces) or {}).get("site", "residual")
    if site not in SITES:
        raise InputError(
            f"patch was given traces of the site {site!r}; it puts back one of "
            f"{', '.join(SITES)}. Capture one of those."
        )
