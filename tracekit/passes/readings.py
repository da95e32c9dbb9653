"""What one trace reads for several requests: each value once, in the order of the forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tracekit.model.sites import Site
from tracekit.passes.request import Asked

# where a block has several sites, they come in this order
ORDER = (
    *("queries", "keys", "values", "pattern", "heads", "attention"),
    *("router", "mlp_hidden", "mlp", "residual"),
)
# which of the value's places, axes, tokens a row, reduce, directions, parts of probes
Use = tuple[torch.Tensor | None, int, list[int], Any, Any, Any]
# layer, site, places among rows × columns, and what each use of them keeps
Reading = tuple[int, Site, torch.Tensor, list[Use]]


def readings(
    asked: Sequence[Asked],
    places: Sequence[tuple[torch.Tensor, list[int]]],
    directions: Sequence[Mapping[int, Any]],
) -> tuple[list[Reading], list[int]]:
    """All that is read, plain values, and whose each kept entry is: the number of its request.

    `places` are, of each request, where its tokens lie among rows × columns, and how many each row
    (or part of one) has. Requests of one site share what is read of it.
    """
    reads: list[Reading] = []
    owners: list[int] = []
    inner = [one for one in asked if not one.is_logprob]
    for layer in sorted({layer for one in inner for layer in one.layers}):
        for site in _in_order([one.site for one in inner if layer in one.layers]):
            there = [n for n, one in enumerate(asked) if _same(one.site, site)]
            index, chosen = _together([places[n][0] for n in there])
            uses: list[Use] = []
            for n, part in zip(there, chosen, strict=True):
                one, here = asked[n], directions[n].get(layer)
                if layer not in one.layers:
                    continue
                kept = (None, here) if one.probes else (here, None)
                uses.append((part, len(one.axes), places[n][1], one.reduce, *kept))
                owners += [n] * (len(here or ()) if one.probes else 1)
            reads.append((layer, site, index, uses))
    return reads, owners


def _in_order(sites: Sequence[Site]) -> list[Site]:
    named = {site for site in sites if isinstance(site, str)}
    functions = list({id(site): site for site in sites if not isinstance(site, str)}.values())
    return [*functions, *(site for site in ORDER if site in named)]


def _same(one: Site, other: Site) -> bool:
    return one == other if isinstance(one, str) else one is other


def _together(
    indices: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """The places that any of them has, and where each one's are among those (None: all)."""
    if len(indices) == 1 and len(indices[0].unique()) == len(indices[0]):
        return indices[0], [None]
    union = torch.cat(list(indices)).unique()
    return union, [
        None if torch.equal(one, union) else torch.searchsorted(union, one) for one in indices
    ]
