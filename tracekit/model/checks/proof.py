"""Proof that what a part of a block puts out is what the block adds to its residual stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float

Stream = Float[torch.Tensor, "token dim"]
# the most other parts whose outputs a block adds beside the one in question
BESIDE = 3
# of the part's own norm; and roundings of the stream, of which a block makes a few
EXACT, ROUNDINGS = 1e-4, 2
# the names of parts that do the same: where two of them add, neither is the whole
KIN = {
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "moe", "expert", "ffn", "feed_forward", "feedforward"),
}


@dataclass(frozen=True)
class Call:
    """What a module was given, its first argument, and what it put out, in one forward."""

    name: str
    given: Any
    output: Any


@dataclass(frozen=True)
class Ran:
    """A block in one forward: its own call, those of its modules, and which of them is which site.

    Values are float64; `dtype` is what the stream was held in.
    """

    calls: Sequence[Call]
    modules: Mapping[str, Sequence[Call]]
    parts: Mapping[str, str]
    dtype: torch.dtype


def unproved(
    blocks: Sequence[Ran], real: Bool[torch.Tensor, "row column"]
) -> dict[str, dict[int, str]]:
    """Why a part is not what its block adds, by site and block.

    A part is right where output − input of the block is its output plus those of up to three other
    modules of the block, each as it is: nothing scaled, nothing normed afterwards; or where the
    block's output is its output plus the input of one of those modules. A part that is right is
    left out. `real` are the tokens to look at.
    """
    reasons: dict[str, dict[int, str]] = {}
    for number, block in enumerate(blocks):
        for site in block.parts:
            reason = _shared(blocks, number, site) or _of_block(block, site, real)
            if reason is not None:
                reasons.setdefault(site, {})[number] = reason
    return reasons


def _shared(blocks: Sequence[Ran], number: int, site: str) -> str | None:
    # nnsight would read one block's call as another's
    path = blocks[number].parts[site]
    sharing = [n for n, block in enumerate(blocks) if block.parts.get(site) == path]
    return f"its module is shared by the blocks {sharing}." if len(sharing) > 1 else None


def _of_block(block: Ran, site: str, real: torch.Tensor) -> str | None:
    if len(block.calls) != 1:
        return f"its block ran {len(block.calls)} times in one forward, not once."
    before, after = block.calls[0].given, _first(block.calls[0].output)
    if not isinstance(before, torch.Tensor) or before.shape != after.shape:
        return "its block puts out something else than the stream it was given."

    def flat(value: torch.Tensor) -> Stream:
        return value.reshape(before.shape)[real]

    def fits(value: Any) -> bool:
        # a part may see its tokens in one row
        return isinstance(value, torch.Tensor) and value.numel() == before.numel()

    calls = [(path, call) for path, many in block.modules.items() for call in many]
    outputs = [(path, c.name, _first(c.output)) for path, c in calls if fits(_first(c.output))]
    own = [flat(value) for path, _, value in outputs if path == block.parts[site]]
    others = [(name, flat(value)) for path, name, value in outputs if path != block.parts[site]]
    given = [flat(call.given) for _, call in calls if fits(call.given)]
    start, end = flat(before), flat(after)
    rounding = ROUNDINGS * torch.finfo(block.dtype).eps * (start.norm(dim=-1) + end.norm(dim=-1))
    return _reason(start, given, others, end, own, rounding, KIN[site])


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _reason(
    before: Stream,
    given: Sequence[Stream],
    others: Sequence[tuple[str, Stream]],
    after: Stream,
    own: Sequence[Stream],
    rounding: Float[torch.Tensor, token],
    kin: Sequence[str],
) -> str | None:
    if len(own) != 1:
        return f"its module put out {len(own)} values of the stream's size in one forward, not 1."
    # a dropout's output is its part's own again
    others = [(name, value) for name, value in others if not torch.equal(value, own[0])]
    bound = EXACT * own[0].norm(dim=-1) + rounding
    nearest, size = torch.inf, (after - before).norm(dim=-1).clamp(min=1e-12)
    for start, beside in _sums(before, given, others):
        gap = (after - start - own[0] - sum(value for _, value in beside)).norm(dim=-1)
        if bool((gap <= bound).all()):
            twins = [name for name, _ in beside if any(word in name for word in kin)]
            return f"{twins[0]!r} adds to the stream beside it, so it is a part." if twins else None
        nearest = min(nearest, float((gap / size).max()))
    return (
        "the block does not add it as it is: output − input differs from it and up to "
        f"{BESIDE} other parts by at least {nearest:.3g} of its norm."
    )


def _sums(
    before: Stream, given: Sequence[Stream], others: Sequence[tuple[str, Stream]]
) -> Iterator[tuple[Stream, tuple[tuple[str, Stream], ...]]]:
    """What the part may have been added to, and what else was added then."""
    for count in range(BESIDE + 1):
        for beside in itertools.combinations(others, count):
            yield before, beside
    # the stream in the middle of the block, as a norm there is given it
    for middle in given:
        yield middle, ()
