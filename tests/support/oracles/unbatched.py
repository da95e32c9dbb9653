"""What plain transformers and peft say of each text alone, without padding or cache: no tracekit.

The other side of every row of `every_kind.py`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tests.support.oracles import additions

SITES = ("residual", "attention", "mlp")
Rows = Sequence[Sequence[int]]


@dataclass
class Said:
    """`sites` maps (site, layer) to (token, dim), the texts one after the other; a text each:
    log-probabilities of its tokens but the first, the ids it goes on with, and the smallest
    distance between the two best logits on the way."""

    sites: dict[tuple[str, int], torch.Tensor]
    logprobs: list[torch.Tensor]
    ids: list[list[int]]
    margins: list[float]


def decoder_blocks(model: torch.nn.Module, ids: Sequence[int]) -> list[torch.nn.Module]:
    """The longest module list whose members hand the stream from one to the next.

    Errors: `ValueError` for a model without one.
    """
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1]
    seen: dict[int, tuple[Any, Any]] = {}

    def keep(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = additions.tensor(args or tuple(kwargs.values()))
        ends = given, additions.tensor(output)
        seen[id(module)] = tuple(None if end is None else end.clone() for end in ends)  # type: ignore[assignment]

    members = {id(child): child for found in lists for child in found}
    handles = [m.register_forward_hook(keep, with_kwargs=True) for m in members.values()]
    with torch.no_grad():
        _logits(model, ids)
    for handle in handles:
        handle.remove()
    chained = [found for found in lists if _chained([seen.get(id(m)) for m in found])]
    if not chained:
        raise ValueError("no list of blocks hands the stream from one to the next")
    longest: list[torch.nn.Module] = max(map(list, chained), key=len)
    return longest


def _chained(ends: Sequence[tuple[Any, Any] | None]) -> bool:
    if any(end is None or end[0] is None or end[1] is None for end in ends):
        return False
    handed = [additions.same(a[1], b[0]) for a, b in itertools.pairwise(ends)]  # type: ignore[index]
    # some models add something of their own between two blocks
    return all(a[0].shape == a[1].shape for a in ends if a) and sum(handed) * 2 >= len(handed)


def read(
    model: torch.nn.Module, blocks: list[torch.nn.Module], rows: Rows, new: int, proved: bool = True
) -> Said:
    """Everything of a model, with whatever hooks are on it; `proved=False` leaves the parts out."""
    sites: dict[tuple[str, int], list[torch.Tensor | None]] = {}
    logprobs, said, margins = [], [], []
    for ids in rows:
        noted: Any = additions.noted(blocks) if proved else contextlib.nullcontext({})
        with torch.no_grad(), noted as calls:
            logits = _logits(model, ids)
        scores = logits[:-1].log_softmax(-1)
        logprobs.append(scores.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1))
        for layer, noted_calls in calls.items():
            for site, value in _sites(noted_calls).items():
                sites.setdefault((site, layer), []).append(value)
        more, margin = _continued(model, ids, new)
        said.append(more)
        margins.append(margin)
    joined = {place: _joined(values) for place, values in sites.items()}
    return Said({p: v for p, v in joined.items() if v is not None}, logprobs, said, margins)


def _sites(calls: Sequence[additions.Block]) -> dict[str, torch.Tensor | None]:
    # a block that runs several times a forward counts as it ran last
    last = calls[-1]
    assert last.output is not None
    width = last.output.shape[-1]
    added = additions.contributions(last) or {}
    values = {"residual": last.output, **{site: added.get(site) for site in ("attention", "mlp")}}
    return {s: None if v is None else v.reshape(-1, width) for s, v in values.items()}


def _joined(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    whole = [value for value in values if value is not None]
    return torch.cat(whole) if len(whole) == len(values) else None


def _continued(model: torch.nn.Module, ids: Sequence[int], new: int) -> tuple[list[int], float]:
    ends = model.generation_config.eos_token_id  # type: ignore[union-attr]
    stops = set(ends if isinstance(ends, list) else [ends])
    more: list[int] = []
    margin = float("inf")
    with torch.no_grad():
        while len(more) < new and not (more and more[-1] in stops):
            best = _logits(model, [*ids, *more])[-1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            more.append(int(best.indices[0]))
    return more, margin


def _logits(model: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    given = torch.tensor([list(ids)])
    out = model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False)
    return out.logits[0].float()


@contextlib.contextmanager
def steered(block: torch.nn.Module, vector: torch.Tensor, start: int) -> Iterator[None]:
    """Adds a vector to a block's output from the token at `start` on."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        value = output if isinstance(output, torch.Tensor) else output[0]
        value = value.clone()
        value[:, start:] += vector
        return value if isinstance(output, torch.Tensor) else (value, *output[1:])

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
