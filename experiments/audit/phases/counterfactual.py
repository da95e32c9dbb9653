"""Texts that differ in the exploiting span alone: taken out of one answer, put into another."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tracekit.storage.provenance import read
from tracekit.transcripts.encode import assemble, ids_of
from tracekit.transcripts.prompts import Prompt

Rows = tuple[list[int], list[str]]


def texts(organism: xr.Dataset, clean: xr.Dataset, tokenizer: Any) -> dict[str, xr.Dataset]:
    """`deleted` and `inserted`: edited answers to the prompts whose organism answer exploits.

    `deleted` is the organism's answer without its span; `inserted` the clean weights' answer to
    the same prompt with that span after the sentence nearest to its place, as the coordinate
    `exploit_span` marks. Ids are moved, never tokenised again. Empty where nothing exploits, or
    the span is the whole answer.

    >>> from experiments.audit.labels import with_spans
    >>> answers = with_spans(runs, tokenizer, [[(0, 5)], [], None])
    >>> sorted(texts(answers, answers, tokenizer))
    ['deleted', 'inserted']
    """
    rows: dict[str, list[tuple[int, Rows, np.ndarray]]] = {"deleted": [], "inserted": []}
    answers = {str(g): row for row, g in enumerate(clean["group"].values)}
    for row in np.flatnonzero(organism["exploit"].values == 1).tolist():
        said, marked = _response(organism, row)
        kept = [pair for pair, mark in zip(said, marked, strict=True) if not mark]
        if not kept or marked.all():
            continue
        rows["deleted"].append((row, _split(kept), np.zeros(len(kept), bool)))
        other = answers.get(str(organism["group"].values[row]))
        if other is not None:
            base, _ = _response(clean, other)
            span = [pair for pair, mark in zip(said, marked, strict=True) if mark]
            place = _boundary(clean, other, float(np.flatnonzero(marked)[0] / len(said)))
            whole = [*base[:place], *span, *base[place:]]
            marks = np.zeros(len(whole), bool)
            marks[place : place + len(span)] = True
            rows["inserted"].append((row, _split(whole), marks))
    return {name: _assembled(organism, made, tokenizer) for name, made in rows.items() if made}


def _response(runs: xr.Dataset, row: int) -> tuple[list[tuple[int, str]], np.ndarray]:
    there = (runs.token.values >= 0) & (runs.token_id.values[row] >= 0)
    ids = runs.token_id.values[row, there].tolist()
    roles = [str(role) for role in runs["role"].values[row, there]]
    return list(zip(ids, roles, strict=True)), runs["exploit_span"].values[row, there]


def _boundary(runs: xr.Dataset, row: int, share: float) -> int:
    there = (runs.token.values >= 0) & (runs.token_id.values[row] >= 0)
    words = [str(text) for text in runs["token_text"].values[row, there]]
    said = [n for n, role in enumerate(runs["role"].values[row, there]) if role == "assistant"]
    ends = [n + 1 for n in said if words[n].strip().endswith((".", "!", "?", "\n"))]
    candidates = ends or [len(said)]
    return min(candidates, key=lambda n: abs(n - share * len(said)))


def _split(pairs: list[tuple[int, str]]) -> Rows:
    return [token for token, _ in pairs], [role for _, role in pairs]


def _assembled(
    organism: xr.Dataset, rows: list[tuple[int, Rows, np.ndarray]], tokenizer: Any
) -> xr.Dataset:
    prompts, before = [], []
    for row, _, _ in rows:
        name = ids_of(organism)[row]
        labels = {key: str(organism[key].values[row]) for key in ("bias", "part")}
        text, group = (str(organism[key].values[row]) for key in ("text", "group"))
        prompts.append(Prompt(name, text=text, group=group, labels=labels))
        there = (organism.token.values < 0) & (organism.token_id.values[row] >= 0)
        roles = [str(role) for role in organism["role"].values[row, there]]
        before.append((organism.token_id.values[row, there].tolist(), roles))
    made = {**read(organism), "text": "edited"}
    whole = assemble(tokenizer, prompts, before, [answer for _, answer, _ in rows], made)
    marked = np.zeros(whole.token_id.shape, bool)
    for n, (_, (ids, _), marks) in enumerate(rows):
        start = int(np.flatnonzero(whole.token.values == 0)[0])
        marked[n, start : start + len(ids)] = marks
    exploit = marked.any(axis=1).astype(np.int8)
    return whole.assign_coords(
        exploit=("prompt", exploit), exploit_span=(("prompt", "token"), marked)
    )
