"""A probe while a batch runs: what it says of each token, and of each response so far."""

from __future__ import annotations

import torch
from jaxtyping import Float

from tracekit.edits.positions import Running as Batch
from tracekit.edits.probe_form import ProbeForm, scored
from tracekit.transcripts.running import Running
from tracekit.transcripts.selection import Selection

Scores = Float[torch.Tensor, "row column"]


class SoFar:
    """Of the rows of one batch, the pooled score of what each has said, forward after forward.

    The tokens that the probe pools count (the response's own, unless it was fitted on others);
    before the first of them it is NaN. A forward that holds all tokens so far (the first, and each
    one without a cache) begins anew.
    """

    def __init__(self, form: ProbeForm) -> None:
        self._form, self._running = form, Running(form.pooling)
        self._tokens = Selection(form.tokens)

    @classmethod
    def of(cls, owner: object, batch: Batch, form: ProbeForm) -> SoFar:
        """What `owner` keeps of a batch, for as long as the batch runs."""
        if id(owner) not in batch.memory:
            batch.memory[id(owner)] = cls(form)
        kept: SoFar = batch.memory[id(owner)]
        return kept

    def step(self, hidden: torch.Tensor, batch: Batch, step: int) -> tuple[Scores, Scores]:
        """Each column's score, and the pooled one up to it, of a forward's residuals."""
        rows, first = batch.rows(step, hidden.shape[1]), 0
        scores, weights = scored(hidden, self._form.parts(hidden.device))
        counted = rows.within(self._tokens)
        if step == 0 or hidden.shape[1] > 1:
            self._running = Running(self._form.pooling)
            first = int((~counted).all(0).long().cumprod(0).sum())
        said = scores.where(counted.to(scores.device), torch.nan)
        so_far = torch.full_like(scores, torch.nan)
        for column in range(first, hidden.shape[1]):
            attention = self._form.attention(weights[:, column])
            so_far[:, column] = self._running.step(said[:, column], attention).float()
        return scores, so_far
