"""Pairs of a run and its source, a group at a time: what is kept of both, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from nnsight import TransformersModel

from tracekit.edits.compatibility import listed
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.load import model_provenance
from tracekit.passes import batching
from tracekit.passes.patching.places import Places, pairs
from tracekit.passes.readouts.metrics import Judge, Metric, judge
from tracekit.passes.starting import Residual, head_of, require_local, value
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.selection import Tokens

# what a block adds to the stream, in the order in which it is made
SITES = ("heads", "attention", "mlp", "residual")


@dataclass(frozen=True)
class Pairs:
    """What is patched: runs and their sources, where, and what judges the result."""

    model: TransformersModel
    runs: xr.Dataset
    sources: xr.Dataset
    judge: Judge
    source_judge: Judge
    layers: list[int]
    sites: tuple[str, ...]
    places: Places

    def groups(self, kept_bytes: int, parts: int) -> Iterator[Group]:
        """A few pairs at a time, of like lengths, whose activations fit into memory."""
        budget = batching.default_budget(self.model, kept_bytes, parts=parts)
        sizes = [tensors.lengths(side) for side in (self.runs, self.sources)]
        for rows in batching.plan(np.maximum(*sizes).tolist(), budget):
            yield Group(self, rows)

    @property
    def token_bytes(self) -> int:
        """The bytes of one site of a token."""
        module = self.model._module
        return int(module.config.get_text_config().hidden_size * module.dtype.itemsize)

    def labelled(
        self,
        values: Float[np.ndarray, "site layer prompt token"],
        scores: Float[np.ndarray, "2 prompt"],
        name: str,
        how: dict[str, object],
    ) -> xr.DataArray:
        """(site, layer, token, prompt), with the metric of both sides as they are."""
        coords = {
            **self.places.coordinates(self.runs, self.sources),
            "site": list(self.sites),
            "layer": np.asarray(self.layers, np.int32),
            "unpatched": ("prompt", scores[0]),
            "source": ("prompt", scores[1]),
        }
        if "group" in self.runs.coords:
            coords["group"] = ("prompt", self.runs["group"].values)
        dims = ("site", "layer", "prompt", "token")
        array = xr.DataArray(values, coords, dims=dims, name=name)
        described = {
            "metric": self.judge.name,
            "sources": ids_hash(self.sources),
            "places": digest([self.places.at.tolist(), self.places.source.tolist()]),
            **how,
        }
        made = {**read(self.runs), **model_provenance(self.model), "ids": ids_hash(self.runs)}
        return stamp(array.transpose("site", "layer", "token", "prompt"), {**made, name: described})


def ask(
    model: TransformersModel,
    runs: xr.Dataset,
    sources: xr.Dataset,
    metric: Metric,
    layers: int | Sequence[int] | None,
    tokens: Tokens,
    source_tokens: Tokens | None,
    named_sites: str | Sequence[str],
) -> Pairs:
    """What was asked for, once all of it fits.

    Errors: `ValueError` for what does not.
    """
    require_local(model, "Patching")
    tensors.require_transcripts(runs)
    tensors.require_transcripts(sources)
    chosen = (named_sites,) if isinstance(named_sites, str) else tuple(named_sites)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(SITES):
        raise InputError(
            f"sites={list(chosen)} was asked for; give some of {list(SITES)}, each once."
        )
    for site in chosen:
        wanted = sites.check_layers(model, listed(layers), site)
    if "heads" in chosen:
        (count, _) = sites.sizes(model, wanted, "heads")
        at = chosen.index("heads")
        chosen = (*chosen[:at], *(f"head {n}" for n in range(count)), *chosen[at + 1 :])
    places, judged = pairs(runs, sources, tokens, source_tokens), judge(model, runs, metric)
    if wanted[0] == -1 or (judged.layer is not None and wanted[-1] > judged.layer):
        raise InputError(
            f"Layers {wanted} were asked for; patches go into the blocks 0 to "
            f"{len(model.layers) - 1}, and no deeper than what the metric reads"
            f"{'' if judged.layer is None else f', layer {judged.layer}'}. Choose among those."
        )
    return Pairs(
        model=model,
        runs=runs,
        sources=sources,
        judge=judged,
        source_judge=judge(model, sources, metric),
        layers=wanted,
        sites=chosen,
        places=places,
    )


def base_of(site: str) -> str:
    """The site that one is a part of.

    >>> base_of("head 3"), base_of("mlp")
    ('heads', 'mlp')
    """
    return site if head_of(site) is None else "heads"


class Group:
    """Some pairs, in one padded batch a side."""

    def __init__(self, asked: Pairs, rows: Sequence[int]) -> None:
        self.asked, self.rows = asked, torch.as_tensor(list(rows))
        # as numpy indexes with them: it takes a tensor of one row for a number
        self.prompts = np.asarray(list(rows))
        self.made = batching.batch(asked.model, asked.runs, rows)
        self.source = batching.batch(asked.model, asked.sources, rows)
        places = asked.places
        self.there: Bool[torch.Tensor, "row place"] = torch.as_tensor(places.there[rows])
        self.at = self._columns(self.made, places.at[rows])
        self.from_ = self._columns(self.source, places.source[rows])

    def _columns(self, made: Batch, labels: np.ndarray) -> Int[torch.Tensor, "row place"]:
        columns = torch.as_tensor(labels) + made.starts[:, None]
        return columns.where(self.there, 0)

    def taken(self, values: Residual) -> Float[torch.Tensor, "row place dim"]:
        """The sources' values at their places."""
        rows = torch.arange(len(self.rows))[:, None]
        return values[rows, self.from_]

    def sources(self) -> tuple[dict[tuple[str, int], torch.Tensor], torch.Tensor]:
        """(site, layer) → the sources' values (row, place, dim), and their own metric (row)."""
        asked, model = self.asked, self.asked.model
        options = {"use_cache": False, **asked.source_judge.options(model)}
        judge, wanted, taken = asked.source_judge, asked.sites, self.taken
        rows, layers = self.rows, asked.layers
        with (
            torch.no_grad(),
            rows_of(model, self.source),
            model.trace(self.source.model_inputs, **options),
        ):
            saved = nnsight.save(_read(model, self.source, rows, judge, layers, wanted, taken))
        return saved


def _read(
    model: TransformersModel,
    made: Batch,
    rows: torch.Tensor,
    judge: Judge,
    layers: Sequence[int],
    wanted: Sequence[str],
    taken: Callable[[Residual], torch.Tensor],
) -> tuple[dict[tuple[str, int], torch.Tensor], torch.Tensor]:
    values, residual = {}, None
    ordered = sorted(wanted, key=lambda site: SITES.index(base_of(site)))
    for layer in sorted({*layers, *([] if judge.layer is None else [judge.layer])}):
        for site in ordered if layer in layers else ():
            values[site, layer] = taken(value(model, layer, site))
        if layer == judge.layer:
            residual = sites.read(model, layer, "residual")
    return values, judge.read(model, made, rows, residual)
