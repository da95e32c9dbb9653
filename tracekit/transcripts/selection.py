"""Which tokens: one grammar for captures, gradients and edits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from tracekit.errors import InputError, brief
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import ids_of, own_names
from tracekit.transcripts.tensors import require_transcripts

Tokens = str | slice | range | Sequence[int] | np.ndarray | xr.DataArray
# a response's first token is said by the last of the prompt, which belongs to both
WORDS = {"response": slice(-1, None), "prompt": slice(None, -1), "all": slice(None)}
# what encode calls the n-th text of any set
AUTOMATIC = re.compile(r"text/\d+(#\d+)*")
# the ids that a mask of `find` was made of: `token_id` would collide with the transcripts' own
FOUND_ID = "found_id"
GRAMMAR = (
    "'response' (with the last prompt token), 'prompt', 'all', a slice of token labels such as "
    "slice(0, 4) (both ends included), a list of them, and a boolean DataArray over (prompt, "
    "token) such as tk.find(runs, role='user') or runs.role == 'assistant'"
)
# as long a list of labels is recorded as it stands
SHOWN_LABELS = 32
Labels = Int[np.ndarray, "row column"]
Chosen = Bool[np.ndarray, "row column"]


class Selection:
    """Tokens, by the grammar that every `tokens=` has, and where they lie in given rows.

    "response" (and the last prompt token, which says its first), "prompt", "all"; a slice or a
    list of token labels; or a boolean array (prompt, token), whose rows are matched by prompt id
    and columns by label. What a mask has no label for is not chosen. A mask that knows its ids (of
    `find`, of traces) or prompt lengths (of transcripts) acts on no others.

    Errors: `ValueError` for anything else.
    """

    def __init__(self, tokens: Tokens) -> None:
        require_tokens(tokens)
        self.tokens = tokens
        self.name = recorded(tokens)
        self._mask = _Mask(tokens) if isinstance(tokens, xr.DataArray) else None

    def at(self, prompts: Sequence[str], labels: Labels, ids: Labels, real: Chosen) -> Chosen:
        """Where they are in rows of these prompts, token labels and ids (−1: not known yet).

        Errors: `ValueError` for a prompt that a mask has no row for, or other ids in its row.
        """
        if self._mask is None:
            return real & _by_label(labels, self.tokens)
        return self._mask.at(prompts, labels, ids, real)

    def labels(self, axis: Int[np.ndarray, " token"]) -> Bool[np.ndarray, " token"]:
        """Which labels of an axis any row may have chosen."""
        if self._mask is None:
            return _by_label(axis, self.tokens)
        return np.isin(axis, self._mask.axis[self._mask.values.any(0)])

    def require_known(self) -> None:
        """Errors: `ValueError` for a mask whose prompts have automatic ids and nothing else."""
        if self._mask is not None:
            self._mask.require_known()


def kept_tokens(transcripts: xr.Dataset, tokens: Tokens) -> Bool[np.ndarray, "prompt token"]:
    """Which (prompt, token) places of transcripts to keep.

    Errors: `ValueError` for tokens that are no labels, or that leave a prompt with nothing.
    """
    require_transcripts(transcripts)
    kept = _chosen(transcripts, tokens)
    _refuse_empty(transcripts, tokens, kept.any(1))
    return kept


def kept_parts(
    transcripts: xr.Dataset, tokens: xr.DataArray
) -> Bool[np.ndarray, "prompt stretch token"]:
    """The same of a mask of several parts of each row, of which any may have nothing.

    Errors: those of `kept_tokens`, and `ValueError` where no row has anything.
    """
    require_transcripts(transcripts)
    parts = [_chosen(transcripts, tokens.isel(stretch=n)) for n in range(tokens.sizes["stretch"])]
    kept = np.stack(parts, 1)
    if not kept.any():
        _refuse_empty(transcripts, tokens, kept.any((1, 2)))
    return kept


def has_parts(tokens: Tokens) -> bool:
    """Whether it is a mask of several parts of each row: (prompt, stretch, token)."""
    return isinstance(tokens, xr.DataArray) and "stretch" in tokens.dims


def _chosen(transcripts: xr.Dataset, tokens: Tokens) -> Chosen:
    selection, axis = Selection(tokens), transcripts.token.values
    _require_there(tokens, axis)
    ids = transcripts.token_id.transpose("prompt", "token").values
    return selection.at(ids_of(transcripts), np.broadcast_to(axis, ids.shape), ids, ids >= 0)


def _refuse_empty(transcripts: xr.Dataset, tokens: Tokens, any_there: Any) -> None:
    axis = transcripts.token.values
    empty = [name for name, there in zip(ids_of(transcripts), any_there, strict=True) if not there]
    if empty:
        raise InputError(
            f"tokens={brief(tokens)} keeps nothing of {len(empty)} prompts, such as "
            f"{empty[0]!r}, whose labels are within {axis.min()} to {axis.max()}. Leave them out "
            "or widen it: slice(-1, -1) is the last prompt token."
        )


def require_tokens(tokens: Any) -> None:
    """Errors: `ValueError` for what the grammar of tokens does not have."""
    if isinstance(tokens, slice):
        _require_slice(tokens)
    elif isinstance(tokens, xr.DataArray):
        _require_mask(tokens)
    elif not (isinstance(tokens, str) and tokens in WORDS) and not are_labels(tokens):
        raise InputError(f"tokens={brief(tokens)} was asked for; there are {GRAMMAR}.")


def recorded(tokens: Tokens, ordered: bool = False) -> str:
    """The tokens as provenance has them: a word, a slice, labels (as a set) or a mask's hash."""
    if isinstance(tokens, str):
        return tokens
    if isinstance(tokens, slice):
        return f"{tokens.start}:{tokens.stop}:{tokens.step}"
    if not isinstance(tokens, xr.DataArray):
        labels = list(map(int, tokens)) if ordered else sorted(set(map(int, tokens)))
        shown = ",".join(map(str, labels))
        return f"labels:{shown if len(labels) <= SHOWN_LABELS else digest(labels)}"
    if has_parts(tokens):
        parts = [recorded(tokens.isel(stretch=n)) for n in range(tokens.sizes["stretch"])]
        return f"stretches:{digest(parts)}"
    places = np.argwhere(tokens.transpose("prompt", "token").values)
    names, axis = tokens["prompt"].values, tokens["token"].values
    return f"mask:{digest(sorted([str(names[row]), int(axis[column])] for row, column in places))}"


def read_recorded(text: str) -> Tokens:
    """The tokens that `recorded` gave that text: its inverse, where it is not a hash.

    Errors: `ValueError` for a hash (of a mask, or of many labels).

    >>> read_recorded("0:None:None")
    slice(0, None, None)
    """
    if text in WORDS:
        return text
    kind, _, labels = text.partition("labels:")
    if labels and re.fullmatch(r"-?\d+(,-?\d+)*", labels) and not kind:
        return [int(label) for label in labels.split(",")]
    ends = [None if end == "None" else end for end in text.split(":")]
    if len(ends) != 3 or any(end and not re.fullmatch(r"-?\d+", end) for end in ends):
        raise InputError(
            f"Tokens recorded as {text!r} are known by their hash alone, and cannot be found "
            "again. Name them by labels: a slice, or a list."
        )
    return slice(*(None if end is None else int(end) for end in ends))


class _Mask:
    """A boolean array as a table, looked up by prompt and token label."""

    def __init__(self, mask: xr.DataArray) -> None:
        mask = mask.transpose("prompt", "token").sortby("token")
        self.values, self.axis = mask.values, mask["token"].values.astype(np.int64)
        self.place = {name: n for n, name in enumerate(ids_of(mask))}
        known = next((name for name in (FOUND_ID, "token_id") if name in mask.coords), None)
        self.ids = mask[known].transpose("prompt", "token").values if known else None
        lengths = mask.coords.get("prompt_length")
        self.lengths = None if lengths is None or lengths.dims != ("prompt",) else lengths.values

    def at(self, prompts: Sequence[str], labels: Labels, ids: Labels, real: Chosen) -> Chosen:
        rows = np.array([self._row(name) for name in prompts], dtype=int)
        self._require_lengths(prompts, rows, real & (labels < 0))
        columns = np.searchsorted(self.axis, labels).clip(max=len(self.axis) - 1)
        chosen = real & (self.axis[columns] == labels) & self.values[rows[:, None], columns]
        if self.ids is not None:
            self._require_ids(prompts, self.ids[rows[:, None], columns], labels, ids, chosen)
        return chosen

    def require_known(self) -> None:
        automatic = [name for name in self.place if AUTOMATIC.fullmatch(name)]
        if automatic and self.ids is None and self.lengths is None:
            raise InputError(
                f"The mask of tokens= names prompts by ids such as {automatic[0]!r}, which any set "
                "has, and knows neither their ids nor their lengths. Make it with tk.find, or of "
                "the transcripts' own: runs.role == 'user', runs.role.copy(data=…)."
            )

    def _row(self, prompt: str) -> int:
        for name in own_names(prompt):
            if name in self.place:
                return self.place[name]
        raise InputError(
            f"The mask of tokens= has {len(self.place)} prompts and none called {prompt!r}. Make "
            "it of the transcripts that are run."
        )

    def _require_lengths(
        self, prompts: Sequence[str], rows: Int[np.ndarray, " row"], prompt: Chosen
    ) -> None:
        lengths = prompt.sum(1)
        if self.lengths is None or not lengths.any():
            return  # a step of a generation has no prompt
        wrong = np.flatnonzero(lengths != self.lengths[rows])
        if len(wrong):
            raise InputError(
                f"The mask of tokens= was made for a prompt {prompts[wrong[0]]!r} of "
                f"{self.lengths[rows[wrong[0]]]} tokens; the run's has {lengths[wrong[0]]}. Make "
                "it of the transcripts that are run."
            )

    def _require_ids(
        self, prompts: Sequence[str], known: Labels, labels: Labels, ids: Labels, chosen: Chosen
    ) -> None:
        other = np.argwhere(chosen & (known >= 0) & (known != ids))
        if len(other):
            row, column = other[0].tolist()
            there = f"{ids[row, column]}" if ids[row, column] >= 0 else "is generated anew"
            raise InputError(
                f"The mask of tokens= was made of other ids: at prompt {prompts[row]!r}, token "
                f"{labels[row, column]}, it knows the id {known[row, column]} and the run's "
                f"{there}. Make it of the transcripts that are run; of the prompt alone, mask & "
                "(mask.token < 0), where the response is generated anew."
            )


def _by_label(labels: np.ndarray, tokens: Any) -> np.ndarray:
    tokens = WORDS[tokens] if isinstance(tokens, str) else tokens
    if not isinstance(tokens, slice):
        return np.isin(labels, np.asarray(tokens))
    chosen = np.ones(labels.shape, dtype=bool)
    if tokens.start is not None:
        chosen &= (labels >= tokens.start) & ((labels - tokens.start) % (tokens.step or 1) == 0)
    return chosen if tokens.stop is None else chosen & (labels <= tokens.stop)


def _require_there(tokens: Tokens, axis: Int[np.ndarray, " token"]) -> None:
    if isinstance(tokens, xr.DataArray):
        lacking = sorted(set(axis.tolist()) - set(tokens["token"].values.tolist()))
        if lacking:
            raise InputError(
                f"The mask of tokens= has not the labels {lacking[0]} to {lacking[-1]} of the "
                "transcripts; a mask is boolean, over (prompt, token), with every label of the "
                "transcripts. Make it of them, such as runs.role == 'assistant'."
            )
    elif not isinstance(tokens, str | slice):
        missing = sorted(set(np.asarray(tokens).tolist()) - set(axis.tolist()))
        if missing:
            raise InputError(
                f"tokens={brief(tokens)} was asked for; no row has the labels {missing}, they are "
                f"within {axis.min()} to {axis.max()}. Choose among those."
            )


def _require_slice(tokens: slice) -> None:
    start, stop, step = tokens.start, tokens.stop, tokens.step
    whole = all(end is None or isinstance(end, int | np.integer) for end in (start, stop, step))
    if not whole:
        raise InputError(f"tokens={tokens!r} was asked for; there are {GRAMMAR}.")
    backwards = None not in (start, stop) and start > stop
    if backwards or (step is not None and (step < 1 or start is None)):
        raise InputError(
            f"tokens={tokens!r} was asked for; both ends are token labels (included, the first "
            "not after the last), and a step counts up from the first. 0 is the first response "
            "token."
        )


def _require_mask(mask: xr.DataArray) -> None:
    dims = ("prompt", "token")
    labelled = [dim for dim in dims if dim in mask.indexes and mask.indexes[dim].is_unique]
    whole = mask.dtype == bool and set(mask.dims) == set(dims) and mask.size > 0
    if not whole or len(labelled) < len(dims):
        raise InputError(
            f"tokens= was given a DataArray of {mask.dtype} over {mask.dims} (each label once: "
            f"{labelled}); a mask is boolean, over (prompt, token), with a label of each. Make it "
            "of the transcripts, such as runs.role == 'assistant'."
        )


def are_labels(tokens: Any) -> TypeGuard[Sequence[int]]:
    """Whether tokens are listed by their labels, in an order of their own."""
    if not isinstance(tokens, list | tuple | range | np.ndarray):
        return False
    labels = np.asarray(tokens)
    return labels.ndim == 1 and len(labels) > 0 and labels.dtype.kind in "iu"
