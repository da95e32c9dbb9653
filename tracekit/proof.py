"""Proof that what a part of a block puts out is what the block adds to its residual stream."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
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


@contextlib.contextmanager
def watching(
    blocks: Sequence[torch.nn.Module],
    parts: Sequence[Mapping[str, torch.nn.Module]],
    real: Bool[torch.Tensor, "row column"],
) -> Iterator[dict[str, dict[int, str]]]:
    """Why a part is not what its block adds, by site and block: filled in by a forward inside.

    `parts` names, for each block, the module that stands for a site. It is right where output −
    input of the block is its output plus those of up to three other modules of the block, each
    as it is: nothing scaled, nothing normed afterwards; or where the block's output is its output
    plus the input of one of those modules. A part that is right is left out. `real` are the tokens
    to look at.
    """
    found: dict[str, dict[int, str]] = {}
    watched = [
        _Watched(number, block, named, real, found)
        for number, (block, named) in enumerate(zip(blocks, parts, strict=True))
    ]
    _refuse_shared(parts, found)
    try:
        for one in watched:
            one.attach()
        yield found
    finally:
        for one in watched:
            one.detach()


class _Watched:
    """A block during a forward: its input, and what its modules put out."""

    def __init__(
        self,
        number: int,
        block: torch.nn.Module,
        parts: Mapping[str, torch.nn.Module],
        real: Bool[torch.Tensor, "row column"],
        found: dict[str, dict[int, str]],
    ) -> None:
        self.number, self.block, self.parts = number, block, parts
        self.real, self.found = real, found
        self.handles: list[Any] = []
        self.before: torch.Tensor | None = None
        self.given: list[torch.Tensor] = []
        self.outputs: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def attach(self) -> None:
        inner = dict.fromkeys([*self.block.children(), *self.parts.values()])
        self.handles = [
            self.block.register_forward_pre_hook(self._begin, with_kwargs=True),
            *(module.register_forward_hook(self._note) for module in inner),
            self.block.register_forward_hook(self._end),
        ]

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _begin(self, _block: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        value = next(iter([*inputs, *keywords.values()]), None)
        # copied: a block may add in place
        self.before = value.clone() if isinstance(value, torch.Tensor) else None
        self.given, self.outputs = [], []

    def _note(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and self._fits(inputs[0]):
            self.given.append(self._flat(inputs[0]))
        value = output[0] if isinstance(output, tuple | list) else output
        if self._fits(value):
            self.outputs.append((module, self._flat(value)))

    def _end(self, _block: Any, _inputs: Any, output: Any) -> None:
        after = output[0] if isinstance(output, tuple | list) else output
        if self.before is None or after.shape != self.before.shape:
            return
        before, wide = self._flat(self.before), self._flat(after)
        eps = max(torch.finfo(value.dtype).eps for value in (self.before, after))
        rounding = ROUNDINGS * eps * (before.norm(dim=-1) + wide.norm(dim=-1))
        names = {module: name for name, module in self.block.named_children()}
        for site, part in self.parts.items():
            own = [value for module, value in self.outputs if module is part]
            others = [(names.get(m, ""), v) for m, v in self.outputs if m is not part]
            reason = _reason(before, self.given, others, wide, own, rounding, KIN[site])
            if reason is not None:
                self.found.setdefault(site, {}).setdefault(self.number, reason)
        self.before, self.given, self.outputs = None, [], []

    def _fits(self, value: Any) -> bool:
        # a part may see its tokens in one row
        if self.before is None or not isinstance(value, torch.Tensor):
            return False
        return value.numel() == self.before.numel()

    def _flat(self, value: torch.Tensor) -> Stream:
        assert self.before is not None
        shaped = value.detach().reshape(self.before.shape).to(self.before.device)
        return shaped[self.real.to(shaped.device)].double()


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


def _refuse_shared(
    parts: Sequence[Mapping[str, torch.nn.Module]], found: dict[str, dict[int, str]]
) -> None:
    # nnsight would read one block's call as another's
    for site in {name for named in parts for name in named}:
        held = [(n, id(named[site])) for n, named in enumerate(parts) if site in named]
        for number, module in held:
            sharing = [n for n, other in held if other == module]
            if len(sharing) > 1:
                reason = f"its module is shared by the blocks {sharing}."
                found.setdefault(site, {})[number] = reason
