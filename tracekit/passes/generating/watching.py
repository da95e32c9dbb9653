"""A probe on what is being generated: scores of tokens and of responses so far, where they stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import TransformersModel
from transformers import StoppingCriteria

from tracekit.edits.edit import refuse_remote
from tracekit.edits.positions import running_in
from tracekit.edits.probe_form import read_probe, threshold_of
from tracekit.edits.score_so_far import SoFar
from tracekit.errors import InputError
from tracekit.model import sites
from tracekit.model.record import end_edit
from tracekit.transcripts.padded import Batch


@dataclass(frozen=True)
class Said:
    """The new ids of a row; under a probe also, from the last prompt token on, (token) each:
    its scores and the pooled ones so far, and whether it was stopped.
    """

    ids: list[int]
    scores: np.ndarray | None = None
    so_far: np.ndarray | None = None
    stopped: bool = False


class Watch(StoppingCriteria):
    """A probe that reads each step of a copy of the model, and says which rows are to stop.

    Errors: `ValueError` for a probe that does not fit or has no threshold to stop at, and for a
    remote model.
    """

    def __init__(
        self, model: TransformersModel, probe: xr.Dataset, stop: bool | float, transfer: bool
    ) -> None:
        refuse_remote(model, "generate(monitor=)")
        self.form = read_probe(model, probe, "monitor", transfer=transfer)
        self.limit = _limit(probe, stop)
        self._steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._passed = torch.zeros(0, dtype=torch.bool)
        with model.edit() as (tracer, watched):
            for step in tracer.iter[:]:
                self._note(model._module, step, sites.read(model, self.form.layer, "residual"))
        end_edit(model, watched, {"kind": "read", "layers": [self.form.layer]})
        self.model = watched

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> Any:
        """Which rows have passed: for transformers, which pads them from here on."""
        return self._passed.to(input_ids.device)

    def _note(self, module: torch.nn.Module, step: int, value: torch.Tensor) -> None:
        batch = running_in(module)
        assert batch is not None  # generate says what is running
        so_far = SoFar.of(self, batch, self.form)
        scores = so_far.step(value, batch, step)
        if step == 0:
            # a batch that ran out of memory starts anew in halves
            first = int(batch.batch.starts.min()) - 1
            self._steps, self._passed = [], torch.zeros(len(value), dtype=torch.bool)
            # a prompt's last token says the response's first; what is before says none
            early = (batch.rows(step, value.shape[1]).labels < -1).to(value.device)
            own, pooled = (one.masked_fill(early, torch.nan) for one in scores)
            scores = own, pooled
        # without a cache, a step has all tokens so far
        new = slice(first, None) if step == 0 else slice(-1, None)
        self._steps.append((scores[0][:, new], scores[1][:, new]))
        if self.limit is not None:
            passed = (self._steps[-1][1] > self.limit).any(1)
            self._passed = self._passed.to(passed.device) | passed

    def said(self, made: Batch, responses: Sequence[list[int]]) -> list[Said]:
        """What the rows of the batch that has run have said, each up to where it passed."""
        scores, so_far = (
            torch.cat(part, 1).cpu().numpy() for part in zip(*self._steps, strict=True)
        )
        starts, width = made.starts.numpy(), made.input_ids.shape[1]
        begins, before = starts - starts.min(), width - starts
        rows = []
        for n, ids in enumerate(responses):
            own, pooled = scores[n, begins[n] :], so_far[n, begins[n] :]
            rows.append(self._row(ids, own, pooled, int(before[n])))
            _require_finite(made.prompts[n], rows[-1])
        return rows

    def _row(self, ids: list[int], own: np.ndarray, pooled: np.ndarray, before: int) -> Said:
        # the last token of a response was never read: it was sampled, and nothing came after
        known = before + len(ids)
        over = np.zeros(0, bool) if self.limit is None else pooled[:known] > self.limit
        if over.any():
            kept = max(int(over.argmax()), before)
            return Said(ids[: kept - before], own[: kept + 1], pooled[: kept + 1], True)
        return Said(ids, own[:known], pooled[:known])

    def labelled(self, runs: xr.Dataset, said: Sequence[Said]) -> xr.Dataset:
        """The transcripts with `score`, `score_so_far` (prompt, token) and `stopped` (prompt)."""
        first = int(np.flatnonzero(runs["token"].values == -1)[0])
        filled = np.full((2, runs.sizes["prompt"], runs.sizes["token"]), np.nan, np.float32)
        for n, row in enumerate(said):
            assert row.scores is not None
            filled[:, n, first : first + len(row.scores)] = row.scores, row.so_far
        return runs.assign(
            score=(("prompt", "token"), filled[0]),
            score_so_far=(("prompt", "token"), filled[1]),
            stopped=("prompt", np.array([row.stopped for row in said])),
        )

    def described(self) -> dict[str, Any]:
        """As the provenance records it."""
        pooling = str(self.form.pooling)
        return {**self.form.described(), "pooling": pooling, "stop": self.limit}


def _limit(probe: xr.Dataset, stop: bool | float) -> float | None:
    if stop is False:
        return None
    limit = threshold_of(probe) if stop is True else float(stop)
    if not np.isfinite(limit):
        raise InputError(f"stop={stop} was asked for; give a score, True (the threshold) or False.")
    return limit


def _require_finite(prompt: str, row: Said) -> None:
    assert row.scores is not None
    wrong = np.flatnonzero(~np.isfinite(row.scores))
    if len(wrong):
        raise InputError(
            f"The monitor's score of {prompt!r} at token {wrong[0] - 1} is {row.scores[wrong[0]]}: "
            "the model's values are not finite there. Load with dtype='bfloat16' or 'float32'."
        )
