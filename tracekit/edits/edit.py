"""How an edit is stored on a copy of the model, and what it records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.edits.compatibility import require_blocks
from tracekit.edits.conditions import Condition, Held
from tracekit.edits.positions import Rows, by_row, named, overflow, running_in
from tracekit.errors import InputError
from tracekit.model import parts, sites
from tracekit.model.record import end_edit, origin, own_edits
from tracekit.transcripts.selection import Selection, Tokens

# (value, layer, where, rows) → value, of which only the places in `where` are taken
Change = Callable[[torch.Tensor, int, torch.Tensor, Rows | None], torch.Tensor]
# where a value can be put back: what the blocks, or the projections in them, read next
SITES = ("residual", "attention", "mlp", "heads", "mlp_hidden")


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
    layers: Sequence[int],
    change: Change,
    tokens: Tokens,
    *,
    site: str = "residual",
    when: Condition | None = None,
    **settings: Any,
) -> TransformersModel:
    """A copy of the model on which `change` acts at a site of some layers, in every forward.

    The model itself is untouched; edits made on a copy act in the order they were made. What was
    edited, with the `settings`, goes into the provenance of what the copy makes.

    Errors: `ValueError` for a remote model, for a site or layers that the model lacks, and for
    tokens that `Selection` does not know.
    """
    refuse_remote(model, kind)
    selection, layers = Selection(tokens), sorted(layers)
    selection.require_known()
    require_site(model, layers, site)
    held = None if when is None else Held(model, when, layers[0] - (site != "residual"))
    name = f"{kind} (edit {len(own_edits(model))}, {_shown(settings)})"
    stored = _Edit(name, layers, site, change, selection, held)
    with model.edit() as (tracer, edited):
        for step in tracer.iter[:]:
            stored.act(model, step)
    made = {"kind": kind, "layers": layers, "tokens": named(selection), **settings}
    # as records were before there were sites and conditions
    made |= {} if site == "residual" else {"site": site}
    end_edit(model, edited, made if held is None else {**made, "when": held.described()})
    return edited


def refuse_remote(model: TransformersModel, kind: str) -> None:
    """Errors: `ValueError` for a remote model."""
    if origin(model).remote:
        raise InputError(
            f"{kind} was asked for on the remote model {origin(model).name}: edits do not travel. "
            "Load the model here (remote=False)."
        )


def require_site(model: TransformersModel, layers: Sequence[int], site: str) -> None:
    """Errors: `ValueError` for a site that no edit can put back, or layers that do not have it."""
    if site not in SITES:
        raise InputError(f"site={site!r} was asked for; an edit acts at one of {', '.join(SITES)}.")
    require_blocks(model, layers)
    sites.check_layers(model, layers, site)


@dataclass(frozen=True)
class _Edit:
    """What happens in each forward of an edited copy."""

    name: str
    layers: Sequence[int]
    site: str
    change: Change
    selection: Selection
    held: Held | None

    def act(self, model: TransformersModel, step: int) -> None:
        module, holds = model._module, None
        if self.held is not None and self.held.reads:
            seen = sites.read(model, self.held.layer, "residual")
            holds = self.held.over(seen, running_in(module), step)
        for layer in self.layers:
            value = _read(model, layer, self.site)
            new = self._changed(module, by_row(module, value), layer, step, holds)
            sites.write(model, layer, self.site, new.reshape(value.shape))

    def _changed(
        self,
        module: torch.nn.Module,
        value: torch.Tensor,
        layer: int,
        step: int,
        holds: torch.Tensor | None,
    ) -> torch.Tensor:
        running, rows = running_in(module), _rows(module, step, value)
        if running is None:
            where = torch.ones(*value.shape[:2], 1, dtype=torch.bool, device=value.device)
            self._refuse_raw()
        else:
            where = running.chosen(self.selection, step, value)
        if self.held is not None:
            where = where & self.held.during(rows).to(where.device)
        if holds is not None:
            where = where & holds.to(where.device)
        where = where.reshape(*value.shape[:2], *[1] * (value.ndim - 2))
        new = torch.where(where, self.change(value, layer, where, rows).to(value.dtype), value)
        # a norm squares its input, so a value that is finite may still be too large
        bad = (_finite(value) & ~_finite(new)).any(-1)
        if running is not None:
            running.report(f"{self.name} at layer {layer}", bad)
        elif bool(bad.any()):
            raise InputError(overflow(f"{self.name} at layer {layer}", "a raw trace"))
        return new

    def _refuse_raw(self) -> None:
        if self.selection.name != "all":
            raise InputError(
                f"An edit at token labels {named(self.selection)} ran in a raw model.trace, where "
                "no row's response start is known. Use tk.generate or tk.capture, or tokens='all'."
            )


def _rows(module: torch.nn.Module, step: int, value: torch.Tensor) -> Rows | None:
    running = running_in(module)
    return None if running is None else running.rows(step, value.shape[1])


def _read(model: TransformersModel, layer: int, site: str) -> torch.Tensor:
    # what heads hand over, of which what they add to the stream is linear
    if site == "heads":
        return parts.carried(model.layers[layer])
    return sites.read(model, layer, site)


def _finite(value: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(value.float().square().flatten(2).sum(-1))


def _shown(settings: Mapping[str, Any]) -> str:
    shown = ("coefficient", "mean", "bounds", "function", "to")
    kept = {k: v for k, v in settings.items() if k in shown}
    return ", ".join(f"{k} {v}" for k, v in kept.items()) or "stored traces"
