"""How an edit is stored on a copy of the model, and what it records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.edits.directions import Direction, hashed
from tracekit.edits.positions import Rows, named, overflow, running_in
from tracekit.errors import InputError
from tracekit.model.record import end_edit, origin, own_edits
from tracekit.model.sites import first, with_first
from tracekit.transcripts.selection import Selection, Tokens

# (hidden, layer, where, rows) → hidden, of which only the places in `where` are taken
Change = Callable[[torch.Tensor, int, torch.Tensor, Rows | None], torch.Tensor]


def edited_depth(model: TransformersModel) -> int:
    """The deepest block that an edit of this model touches; −1 without edits.

    An edit made with plain nnsight may touch any block, so it counts as the last.
    """
    known = own_edits(model)
    if len(model._edits) > len(known):
        return len(model.layers) - 1
    return max((layer for edit in known for layer in edit["layers"]), default=-1)


def edit(
    model: TransformersModel,
    kind: str,
    at: Mapping[int, Direction],
    change: Change,
    tokens: Tokens,
    **settings: Any,
) -> TransformersModel:
    """A copy of the model on which `change` acts at the layers of `at`, in every forward.

    The model itself is untouched; edits made on a copy act in the order they were made. What was
    edited, with a hash of `at` and the `settings`, goes into the provenance of what the copy makes.

    Errors: `ValueError` for a remote model, and for tokens that `Selection` does not know.
    """
    about = origin(model)
    if about.remote:
        raise InputError(
            f"{kind} was asked for on the remote model {about.name}: edits do not travel. "
            "Load the model here (remote=False)."
        )
    selection = Selection(tokens)
    selection.require_known()
    layers = sorted(at)
    name = f"{kind} (edit {len(own_edits(model))}, {_shown(settings)})"
    with model.edit() as (tracer, edited):
        for step in tracer.iter[:]:
            for layer in layers:
                output = model.layers[layer].output
                new = _changed(model._module, first(output), change, layer, selection, step, name)
                model.layers[layer].output = with_first(output, new)
    made = {"kind": kind, "vector": hashed(at), "layers": layers, "tokens": named(selection)}
    end_edit(model, edited, {**made, **settings})
    return edited


def _changed(
    module: torch.nn.Module,
    hidden: torch.Tensor,
    change: Change,
    layer: int,
    selection: Selection,
    step: int,
    name: str,
) -> torch.Tensor:
    running = running_in(module)
    if running is None:
        if selection.name != "all":
            raise InputError(
                f"An edit at token labels {named(selection)} ran in a raw model.trace, where no "
                "row's response start is known. Use tk.generate or tk.capture, or tokens='all'."
            )
        rows, where = None, torch.ones(*hidden.shape[:2], 1, dtype=torch.bool, device=hidden.device)
    else:
        rows, where = running.rows(step, hidden.shape[1]), running.chosen(selection, step, hidden)
    new = torch.where(where, change(hidden, layer, where, rows).to(hidden.dtype), hidden)
    # a norm squares its input, so a value that is finite may still be too large
    bad = (_finite(hidden) & ~_finite(new)).any(-1)
    if running is not None:
        running.report(f"{name} at layer {layer}", bad)
    elif bool(bad.any()):
        raise InputError(overflow(f"{name} at layer {layer}", "a raw trace"))
    return new


def _finite(hidden: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(hidden.float().square().sum(-1))


def _shown(settings: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in settings.items() if k in ("coefficient", "mean", "bounds")}
    return ", ".join(f"{k} {v}" for k, v in kept.items()) or "stored traces"
