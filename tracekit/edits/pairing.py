"""Which token of stored traces goes where: prompt by prompt, and in them token by token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int

from tracekit.edits.positions import Rows
from tracekit.errors import InputError, brief
from tracekit.transcripts.encode import ids_of, own_names
from tracekit.transcripts.selection import Tokens, require_tokens

# of the rows that run: the traces' row, their column at each of the rows' columns, and where
Found = tuple[
    Int[torch.Tensor, "row 1"], Int[torch.Tensor, "row column"], Bool[torch.Tensor, "row column"]
]
Labels = Int[np.ndarray, " place"]


class Pairing:
    """The n-th token of `at` in a run is given the n-th of `source` in the traces.

    Each is labels, in their order, or a mask (prompt, token). Prompts are paired by `prompts` (a
    run's id to the traces' id); without it by their ids; where a mask of runs has other ids, in
    order; and labels alone take the one prompt that the traces have.

    Errors: `ValueError` for unequal numbers of tokens or prompts, and for tokens and prompts that
    the traces do not have.
    """

    def __init__(
        self,
        traces: xr.DataArray,
        at: Tokens,
        source: Tokens,
        prompts: Mapping[str, str] | None,
    ) -> None:
        self.axis = traces["token"].values
        self.ids = traces["token_id"].transpose("prompt", "token").values
        self.place = {name: n for n, name in enumerate(ids_of(traces))}
        self.at, self.source = _labels("at", at), _labels("source", source)
        self.prompts = dict(prompts) if prompts is not None else self._by_id_or_order()
        if None in self.at and None in self.source:
            _require_equal("Every prompt", self.at[None], self.source[None])
        for target in self.prompts:
            self._columns(target)

    def _by_id_or_order(self) -> dict[str, str]:
        """Pairs of the prompts that a mask of runs names; none for labels, which any prompt has."""
        targets = [name for name in self.at if name is not None]
        if all(name in self.place for name in targets):
            return {name: name for name in targets}
        if len(targets) != len(self.place):
            raise InputError(
                f"at= names {len(targets)} prompts and the traces have {len(self.place)}, with "
                "other ids. Give as many, in the same order, or prompts= (a run's id to the "
                "traces' id)."
            )
        return dict(zip(targets, self.place, strict=True))

    def found(self, rows: Rows) -> Found:
        """What the rows of a running forward are given, and where."""
        order = torch.zeros(len(rows.prompts), 1, dtype=torch.long)
        columns = torch.zeros(rows.labels.shape, dtype=torch.long)
        known = torch.zeros(rows.labels.shape, dtype=torch.bool)
        for n, name in enumerate(rows.prompts):
            order[n], labels, places = self._columns(self._target(name))
            for label, place in zip(labels.tolist(), places.tolist(), strict=True):
                here = (rows.labels[n] == label) & rows.real[n]
                columns[n, here], known[n, here] = place, True
        return order, columns, known

    def _target(self, prompt: str) -> str:
        """A run's own id, or that of the prompt that it is a sample of."""
        names = self.prompts or self.place
        return next((name for name in own_names(prompt) if name in names), prompt)

    def _columns(self, target: str) -> tuple[int, Labels, Labels]:
        """The traces' row of a run, the run's labels, and the traces' columns for them."""
        source = self._source(target)
        row = self.place[source]
        labels, wanted = (
            _of(side, name) for side, name in ((self.at, target), (self.source, source))
        )
        _require_equal(f"Prompt {target!r}", labels, wanted)
        columns = np.searchsorted(self.axis, wanted).clip(max=len(self.axis) - 1)
        missing = wanted[(self.axis[columns] != wanted) | (self.ids[row, columns] < 0)]
        if len(missing):
            there = self.axis[self.ids[row] >= 0]
            raise InputError(
                f"source= names the tokens {missing.tolist()} of {source!r}, which its traces do "
                f"not have; they have {there.min()} to {there.max()}. Choose among those."
            )
        return row, labels, columns

    def _source(self, target: str) -> str:
        source = self.prompts.get(target, target)
        if source not in self.place and len(self.place) == 1 and target not in self.prompts:
            return next(iter(self.place))
        if source not in self.place:
            raise InputError(
                f"patch has traces of {len(self.place)} prompts and none for {target!r} (it "
                f"looked for {source!r}). Give prompts={{{target!r}: …}}, an id of the traces."
            )
        return source


def _labels(what: str, tokens: Tokens) -> dict[str | None, Labels]:
    """Token labels by prompt; those of every prompt under `None`."""
    require_tokens(tokens)
    if isinstance(tokens, xr.DataArray):
        mask = tokens.transpose("prompt", "token").sortby("token")
        axis = mask["token"].values
        return {n: axis[row] for n, row in zip(ids_of(mask), mask.values, strict=True)}
    if isinstance(tokens, slice) and None not in (tokens.start, tokens.stop):
        tokens = range(tokens.start, tokens.stop + 1, tokens.step or 1)
    if isinstance(tokens, str | slice):
        raise InputError(
            f"{what}={brief(tokens)} was given; a map names each token: a list of labels, a slice "
            "with both ends, or a mask such as tk.find(runs, 'Mary', which='last')."
        )
    labels = [int(label) for label in tokens]
    if what == "at" and len(set(labels)) < len(labels):
        raise InputError(f"at={brief(tokens)} names a token twice; name each once.")
    return {None: np.array(labels)}


def _of(side: Mapping[str | None, Any], name: str) -> Labels:
    if None in side:
        return side[None]
    if name not in side:
        raise InputError(
            f"The mask has {len(side)} prompts and none called {name!r}. Make it of the "
            "transcripts that are run, or that the traces are of."
        )
    return side[name]


def _require_equal(which: str, at: np.ndarray, source: np.ndarray) -> None:
    if len(at) != len(source):
        raise InputError(
            f"{which} is to be patched at {len(at)} tokens from {len(source)} of its source. Give "
            "at= and source= of one length."
        )
