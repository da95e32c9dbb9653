"""Poolings while a response grows: the pooled score so far, token by token, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float

from tracekit.errors import InputError
from tracekit.transcripts.pooling import Poolable, Pooling, pooled

Scores = Float[torch.Tensor, "*row"]
State = dict[str, torch.Tensor]


class Running:
    """The pooled score of each row's tokens so far, equal to `pool` of them.

    A step holds a token's score for every row, in any shape that stays the same: (row) or (row,
    probe). NaN is no token: its row keeps its value (NaN before its first). What is kept is a few
    numbers a row (`width` or `k` of them); a function of one's own keeps all scores. Values are
    float64, on the scores' device.

    >>> running = Running("max")
    >>> [running.step(torch.tensor([score])).item() for score in (0.5, 0.25, 0.75)]
    [0.5, 0.5, 0.75]
    """

    def __init__(self, pooling: Poolable) -> None:
        self.pooling = Pooling.read(pooling)
        self._state: State = {}

    def step(self, scores: Scores, attention: Scores | None = None) -> Scores:
        """The pooled scores with one token more a row; `attention` are its logits, where due.

        Errors: `ValueError` for the way "attention" without logits, and the other way round.
        """
        if (self.pooling.way == "attention") != (attention is not None):
            raise InputError(
                f"The pooling {str(self.pooling)!r} was given "
                f"{'no' if attention is None else 'the'} logits of attention; the way 'attention' "
                "has them, and no other. Give scores and logits of an attention probe."
            )
        new = scores.double()
        if self.pooling.function is not None:
            return self._by_function(new)
        options = dict(self.pooling.options)
        if attention is not None:
            options["logits"] = attention.double()
        return _STEPS[self.pooling.way](self._state, new, ~new.isnan(), **options)

    def _by_function(self, new: Scores) -> Scores:
        before = self._state.get("all", new.new_empty((*new.shape, 0)))
        self._state["all"] = torch.cat([before, new[..., None]], -1)
        made = pooled(self._state["all"].cpu().numpy(), self.pooling)
        return torch.as_tensor(made, dtype=torch.float64, device=new.device)


def _kept(state: State, name: str, like: Scores, fill: float) -> torch.Tensor:
    return state.get(name, torch.full_like(like, fill))


def _ratio(total: Scores, count: Scores) -> Scores:
    # 0 / 0, no token yet, is NaN
    return total / count


def _mean(state: State, new: Scores, there: torch.Tensor) -> Scores:
    state["total"] = _kept(state, "total", new, 0.0) + new.nan_to_num(0.0).where(there, 0.0)
    state["count"] = _kept(state, "count", new, 0.0) + there
    return _ratio(state["total"], state["count"])


def _max(state: State, new: Scores, there: torch.Tensor) -> Scores:
    state["best"] = torch.fmax(_kept(state, "best", new, torch.nan), new)
    return state["best"]


def _last(state: State, new: Scores, there: torch.Tensor) -> Scores:
    state["value"] = torch.where(there, new, _kept(state, "value", new, torch.nan))
    return state["value"]


def _rolling_max(state: State, new: Scores, there: torch.Tensor, width: int) -> Scores:
    before = state.get("window", new.new_full((width, *new.shape), torch.nan))
    state["window"] = torch.where(there, torch.cat([before[1:], new[None]]), before)
    state["count"] = count = _kept(state, "count", new, 0.0) + there
    mean = state["window"].nanmean(0)
    best = torch.fmax(_kept(state, "best", new, torch.nan), mean)
    # until a window is full, the mean of what there is
    state["best"] = torch.where(count > width, best, mean)
    return state["best"]


def _top_k(state: State, new: Scores, there: torch.Tensor, k: int) -> Scores:
    before = state.get("top", new.new_full((k, *new.shape), -torch.inf))
    both = torch.cat([before, new.where(there, -torch.inf)[None]])
    state["top"] = top = both.topk(k, 0).values
    state["count"] = count = _kept(state, "count", new, 0.0) + there
    held = torch.arange(k, device=new.device).view(k, *[1] * new.ndim) < count
    return _ratio(top.where(held, 0.0).sum(0), count.clamp(max=k))


def _softmax(state: State, new: Scores, there: torch.Tensor, temperature: float) -> Scores:
    return _weighted(state, new, there, new / temperature)


def _weighted(state: State, new: Scores, there: torch.Tensor, logits: Scores) -> Scores:
    logits = logits.where(there, -torch.inf)
    before = _kept(state, "top", new, -torch.inf)
    state["top"] = top = torch.maximum(before, logits)
    finite = top.where(top > -torch.inf, 0.0)
    shrunk, weight = torch.exp(before - finite), torch.exp(logits - finite)
    along = weight * new.where(there, 0.0)
    state["total"] = _kept(state, "total", new, 0.0) * shrunk + along
    state["weight"] = _kept(state, "weight", new, 0.0) * shrunk + weight
    return _ratio(state["total"], state["weight"])


def _ema(state: State, new: Scores, there: torch.Tensor, decay: float, take: str) -> Scores:
    shrunk = torch.full_like(new, decay).where(there, 1.0)
    total = _kept(state, "total", new, 0.0) * shrunk + new.where(there, 0.0)
    weight = _kept(state, "weight", new, 0.0) * shrunk + there
    state["total"], state["weight"] = total, weight
    mean = _ratio(total, weight)
    return mean if take == "last" else _max(state, mean, there)


_STEPS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "mean": _mean,
        "max": _max,
        "last": _last,
        "rolling_max": _rolling_max,
        "top_k": _top_k,
        "softmax": _softmax,
        "ema": _ema,
        "attention": _weighted,
    }
)
