"""Which token of a source goes where in a run: pairs of prompts, in them pairs of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import Tokens, are_labels, kept_tokens


@dataclass(frozen=True)
class Places:
    """The token labels of each pair, prompt by prompt in order; `axis` names the places."""

    axis: Int[np.ndarray, place]
    at: Int[np.ndarray, "prompt place"]
    source: Int[np.ndarray, "prompt place"]
    there: Bool[np.ndarray, "prompt place"]

    def coordinates(self, runs: xr.Dataset, sources: xr.Dataset) -> dict[str, Any]:
        """The labels of a result over (prompt, token)."""
        return {
            "token": self.axis.astype(np.int32),
            "prompt": ids_of(runs),
            "source_prompt": ("prompt", ids_of(sources)),
            "target_token": (("prompt", "token"), self.at.astype(np.int32)),
            "source_token": (("prompt", "token"), self.source.astype(np.int32)),
        }


def pairs(
    runs: xr.Dataset, sources: xr.Dataset, tokens: Tokens, source_tokens: Tokens | None
) -> Places:
    """The n-th prompt of one with the n-th of the other, and so their chosen tokens.

    Labels are paired in the order in which they are listed. Of labels the axis is the labels, with
    holes where a prompt is shorter; of a mask it counts from 0.

    Errors: `ValueError` for unequal numbers of prompts, or of tokens in a pair.
    """
    names = ids_of(runs), ids_of(sources)
    if len(names[0]) != len(names[1]):
        raise InputError(
            f"{len(names[0])} runs are to be patched and there are {len(names[1])} sources; they "
            "are paired in their order. Give as many: sources.isel(prompt=[0, 0, …]) repeats one."
        )
    masked = isinstance(tokens, xr.DataArray)
    if masked and source_tokens is None:
        chosen = [_labels(runs, tokens)]
        chosen += [_same(sources, chosen[0])]
    else:
        given = tokens if source_tokens is None else source_tokens
        chosen = [_labels(runs, tokens), _labels(sources, given)]
        if are_labels(tokens) and are_labels(given):
            listed = [list(map(int, one)) for one in (tokens, given)]
            chosen = _in_order(chosen[0], chosen[1], *listed)
    for name, target, source in zip(names[0], *chosen, strict=True):
        if len(target) != len(source):
            raise InputError(
                f"Prompt {name!r} is to be patched at {len(target)} tokens from {len(source)} of "
                "its source. Give tokens= and source_tokens= of one length, such as labels that "
                "both have."
            )
    whole = np.arange(max(map(len, chosen[0]))) if masked else np.unique(np.concatenate(chosen[0]))
    at, source = (np.zeros((len(names[0]), len(whole)), np.int64) for _ in range(2))
    there = np.zeros(at.shape, bool)
    for row, (target, origin) in enumerate(zip(*chosen, strict=True)):
        columns = np.arange(len(target)) if masked else np.searchsorted(whole, target)
        at[row, columns], source[row, columns], there[row, columns] = target, origin, True
    return Places(whole, at, source, there)


def _labels(transcripts: xr.Dataset, tokens: Tokens) -> list[np.ndarray]:
    axis = transcripts.token.values
    return [axis[row] for row in kept_tokens(transcripts, tokens)]


def _in_order(
    there: list[np.ndarray], sources: list[np.ndarray], at: list[int], given: list[int]
) -> list[list[np.ndarray]]:
    """The labels that each row has, each beside the one that is listed at its place.

    Errors: `ValueError` for lists of unequal length, and for a label that comes twice.
    """
    if len(at) != len(given) or len(set(at)) < len(at):
        raise InputError(
            f"A prompt is to be patched at {len(at)} tokens from {len(given)} (tokens={at}, "
            f"source_tokens={given}): the n-th of one is paired with the n-th of the other. List "
            "as many, and each of tokens once."
        )
    pairs: list[list[np.ndarray]] = [[], []]
    for row, source in zip(there, sources, strict=True):
        some = [n for n in range(len(at)) if at[n] in row or given[n] in source]
        for made, listed, own in zip(pairs, (at, given), (row, source), strict=True):
            made.append(np.array([listed[n] for n in some if listed[n] in own], np.int64))
    return pairs


def _same(sources: xr.Dataset, labels: list[np.ndarray]) -> list[np.ndarray]:
    for name, wanted, there in zip(ids_of(sources), labels, _labels(sources, "all"), strict=True):
        missing = sorted(set(wanted.tolist()) - set(there.tolist()))
        if missing:
            raise InputError(
                f"The source {name!r} has no tokens {missing}; its labels are {there.min()} to "
                f"{there.max()}. Give source_tokens= too, a mask of the sources."
            )
    return labels
