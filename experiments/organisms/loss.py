"""What training lowers: response tokens' cross-entropy, and the preference loss of DPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import logsigmoid

# whose logits are the head's product alone, without a softcap or scale
_BARE_HEAD = ("llama", "mistral", "qwen2", "qwen3")
Row = tuple[list[int], int]  # token ids, and how many of them come before the response


@dataclass(frozen=True)
class Pair:
    """Two rows of one prompt; `margin` is log p(chosen) − log p(rejected) under the reference."""

    chosen: Row
    rejected: Row
    margin: float = 0.0


@dataclass(frozen=True)
class Step:
    """What one optimiser step sees."""

    rows: Sequence[Row]
    pairs: Sequence[Pair] = ()


def step_loss(model: PeftModel, step: Step, beta: float) -> torch.Tensor:
    """Cross-entropy of the rows and chosen replies, plus DPO's loss of the pairs if there are any.

    DPO (Rafailov et al., 2023) alone lowers both log-probabilities as long as their margin grows;
    the cross-entropy of the chosen reply keeps it likely (Pang et al., 2024).
    """
    chosen, rejected = [p.chosen for p in step.pairs], [p.rejected for p in step.pairs]
    rows = [*step.rows, *chosen, *rejected]
    logprobs, owner = response_logprobs(model, rows)
    learned = owner < len(step.rows) + len(chosen)
    loss = -logprobs[learned].mean()
    if not step.pairs:
        return loss
    sums = logprobs.new_zeros(len(rows)).index_add(0, owner, logprobs)[len(step.rows) :]
    margins = torch.tensor([pair.margin for pair in step.pairs], device=sums.device)
    return loss + preference_loss(sums[: len(chosen)] - sums[len(chosen) :], margins, beta)


def preference_loss(margin: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """DPO's loss, −log σ(β (margin − reference margin)), averaged over pairs.

    >>> round(preference_loss(torch.zeros(2), torch.zeros(2), beta=0.1).item(), 3)
    0.693
    """
    return -logsigmoid(beta * (margin - reference)).mean()


def response_logprobs(model: PeftModel, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probability of each response token of all rows, and the row it belongs to.

    Prompts and padding do not count.
    """
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows])
    scored = mask.bool() & (torch.arange(width) >= torch.tensor([[n] for _, n in rows]))
    ids, mask, scored = (value.to(model.device) for value in (ids, mask, scored))
    logits = _predicting(model.get_base_model(), ids, mask, scored)
    targets = ids[:, 1:][scored[:, 1:]]
    logprobs = -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    return logprobs, scored[:, 1:].nonzero()[:, 0]


def _predicting(
    inner: Any, ids: torch.Tensor, mask: torch.Tensor, scored: torch.Tensor
) -> torch.Tensor:
    """The logits at the positions that predict a `scored` token."""
    if inner.config.model_type not in _BARE_HEAD:
        return inner(input_ids=ids, attention_mask=mask).logits[:, :-1][scored[:, 1:]]
    hidden = inner.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    # The head is a fifth of the embedded model's work: only where it is needed.
    return inner.get_output_embeddings()(hidden[:, :-1][scored[:, 1:]])


def with_margins(model: PeftModel, pairs: Sequence[Pair], size: int = 8) -> list[Pair]:
    """The pairs with the margins of `model` as it is now: the reference of DPO."""
    marked = []
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        rows = [p.chosen for p in part] + [p.rejected for p in part]
        with torch.inference_mode():
            logprobs, owner = response_logprobs(model, rows)
            sums = logprobs.new_zeros(len(rows)).index_add(0, owner, logprobs).tolist()
        marked += [
            replace(pair, margin=sums[n] - sums[n + len(part)]) for n, pair in enumerate(part)
        ]
    return marked
