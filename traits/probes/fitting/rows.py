"""Traces as rows: one layer at a time, in blocks, so that a capture may exceed memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read
from tracekit.transcripts.pooling import chosen
from tracekit.transcripts.selection import Tokens

Block = Float[np.ndarray, "row token dim"]
# bytes of traces that are read at once
BLOCK = 1 << 27


@dataclass(frozen=True)
class Source:
    """Traces over (prompt, token, layer, dim), and which of their tokens count.

    Traces without tokens have one a prompt, and are `flat`.
    """

    traces: xr.DataArray
    real: Bool[np.ndarray, "prompt token"]
    flat: bool

    @property
    def layers(self) -> list[int]:
        """The labels of the layers."""
        return [int(layer) for layer in self.traces["layer"].values]

    @property
    def prompts(self) -> np.ndarray:
        """The prompts' ids."""
        return self.traces["prompt"].values

    def blocks(
        self, layer: int, rows: Int[np.ndarray, " row"]
    ) -> Iterator[tuple[Int[np.ndarray, " row"], Block]]:
        """The traces of these rows at one layer, some rows at a time: which, and (row, token, dim).

        Errors: `ValueError` naming the first token that counts and is not finite.
        """
        at = self.traces.sel(layer=layer)
        for some in self._parts(rows):
            values = np.asarray(at.isel(prompt=some).values, np.float32)
            self._refuse_holes(values, some, layer)
            yield some, values

    def _parts(self, rows: Int[np.ndarray, " row"]) -> list[Int[np.ndarray, " row"]]:
        """Rows in parts of about BLOCK bytes; of a capture, whole chunks of its files."""
        size = 4 * self.traces.sizes["token"] * self.traces.sizes["dim"]
        count = max(BLOCK // max(size, 1), 1)
        if self.traces.chunks is None:
            return [rows[n : n + count] for n in range(0, len(rows), count)]
        # a graph for each of many small chunks would take longer than their values
        ends = np.cumsum(self.traces.chunksizes["prompt"])
        chunk = np.searchsorted(ends, rows, side="right")
        part = np.maximum.accumulate((ends[chunk] - 1) // count)
        return np.split(rows, np.flatnonzero(np.diff(part)) + 1)

    def _refuse_holes(self, values: Block, rows: Int[np.ndarray, " row"], layer: int) -> None:
        wrong = self.real[rows] & ~np.isfinite(values).all(-1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            token = "" if self.flat else f", token {self.traces['token'].values[column]}"
            raise InputError(
                f"{int(wrong.sum())} tokens of the traces are not finite, the first at prompt "
                f"{str(self.prompts[rows[row]])!r}{token}, layer {layer}. Leave them out with "
                "tokens=, or capture again (nonfinite='raise' says where they arise)."
            )


def source(traces: xr.DataArray, tokens: Tokens) -> Source:
    """Traces as rows of the tokens that `tokens` are.

    Errors: `ValueError` for other dims, doubled prompts, and a prompt without any such token.

    >>> source(clean, slice(0, None)).real.any(1).tolist()
    [True, True, True]
    """
    flat = "token" not in traces.dims
    if not {"prompt", "layer", "dim"} <= set(traces.dims) <= {"prompt", "token", "layer", "dim"}:
        raise InputError(
            f"A probe is fitted on traces over (prompt, token, layer, dim) or (prompt, layer, "
            f"dim), and these have {traces.dims}. Choose the rest with .sel."
        )
    if "prompt" not in traces.coords or not traces.indexes["prompt"].is_unique:
        raise InputError(
            "A probe's rows are matched by the coordinate 'prompt', which the traces "
            f"{'have twice for some rows' if 'prompt' in traces.coords else 'lack'}. Label each "
            "row once."
        )
    if flat:
        real = np.ones((traces.sizes["prompt"], 1), bool)
        traces = traces.expand_dims("token")
    else:
        real = there(traces) & chosen(traces, tokens).values
        _refuse_empty(traces, real, tokens)
    return Source(traces.transpose("prompt", "token", "layer", "dim"), real, flat)


def there(traces: xr.DataArray) -> Bool[np.ndarray, "prompt token"]:
    """Where traces have a token: where they have an id, or else a value."""
    if "token_id" in traces.coords:
        return traces["token_id"].transpose("prompt", "token").values >= 0
    # a hole has no value at all; a token that lacks some is none
    rest = {dim: 0 for dim in traces.dims if dim not in ("prompt", "token", "dim")}
    return traces.isel(rest).notnull().any("dim").transpose("prompt", "token").values


def require_order(traces: xr.DataArray, what: str) -> None:
    """Refuse what has no ids and would be taken by place, of rows in the order of batches.

    Errors: `ValueError` for rows of a capture to a path.
    """
    if "prompt" in traces.coords and "row_order" in traces["prompt"].encoding:
        raise InputError(
            f"The {what} have no prompt ids, and the rows of this capture to a path are in the "
            "order of its batches, not of the transcripts. Give a DataArray with the coordinate "
            "'prompt', or label the transcripts (tk.label)."
        )


def contents(traces: xr.DataArray) -> list[str]:
    """Each row's hash of the token ids that traces keep, behind which tokens: "" where unknown.

    >>> contents(xr.DataArray([1.0], {"prompt": ["a"]}, "prompt"))
    ['']
    """
    if "token_id" not in traces.coords or "token" not in traces.dims:
        return [""] * traces.sizes["prompt"]
    made = read(traces) if "provenance" in traces.attrs else {}
    ids = traces["token_id"].transpose("prompt", "token").values
    return [f"{made.get('tokens')} {digest(row[row >= 0].tolist())}" for row in ids]


def _refuse_empty(traces: xr.DataArray, real: np.ndarray, tokens: Tokens) -> None:
    empty = np.flatnonzero(~real.any(1))
    if len(empty):
        raise InputError(
            f"tokens={tokens!r} are none of {len(empty)} of {len(real)} prompts, the first is "
            f"{str(traces['prompt'].values[empty[0]])!r}. Texts without a response have labels "
            "below 0: give tokens='all', or leave the prompts out."
        )


def means(held: Source, layer: int, rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row dim"]:
    """Each row's mean over its tokens, at one layer: float32."""
    made = np.empty((len(rows), held.traces.sizes["dim"]), np.float32)
    at = 0
    for some, values in held.blocks(layer, rows):
        real = held.real[some]
        total = np.einsum("rtd,rt->rd", np.where(real[..., None], values, 0.0), real + 0.0)
        made[at : at + len(some)] = total / real.sum(1, keepdims=True)
        at += len(some)
    return made


def tokens_of(
    held: Source,
    layer: int,
    rows: Int[np.ndarray, " row"],
    kept: Bool[np.ndarray, "prompt token"],
) -> Float[np.ndarray, "place dim"]:
    """The tokens of rows that are `kept` as rows of their own, in order: float32."""
    made = np.empty((int(kept[rows].sum()), held.traces.sizes["dim"]), np.float32)
    at = 0
    for some, values in held.blocks(layer, rows):
        wanted = values[kept[some]]
        made[at : at + len(wanted)] = wanted
        at += len(wanted)
    return made
