"""What attention and mlp add to the residual stream, as torch's own additions say: no tracekit.

Plain transformers runs with hooks, and every addition of two tensors of the stream's size is
noted. From a block's input to its output leads a chain of additions; the other operand of each is
what a part adds, and belongs to the attention or to the mlp by the module that made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ATTENTION = ("attn", "attention")
MLP = (
    "mlp",
    "ffn",
    "feed_forward",
    "feedforward",
    "moe",
    "expert",
    "fc2",
    "output",
    "block_sparse",
)
SCALED = ("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar", "mul_.Tensor")
ADDED = ("add.Tensor", "add_.Tensor")


@dataclass
class Step:
    """An operation on tensors of the stream's size: operands and result, as they were then."""

    operands: list[torch.Tensor]
    result: torch.Tensor
    within: str


@dataclass
class Block:
    """What was noted while one block ran."""

    input: torch.Tensor
    output: torch.Tensor | None = None
    additions: list[Step] = field(default_factory=list)
    scalings: list[Step] = field(default_factory=list)
    modules: list[Step] = field(default_factory=list)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same values in the same order, whatever their shapes."""
    return a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())


class Notes(TorchDispatchMode):
    """Notes additions and scalings of tensors as large as the stream, inside one block."""

    def __init__(self, block: Block, path: list[str]) -> None:
        super().__init__()
        self.block, self.path = block, path

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.__name__
        size = self.block.input.numel()
        before = [
            value.clone()
            for value in args
            if name in (*ADDED, *SCALED) and isinstance(value, torch.Tensor)
        ]
        result = function(*args, **(kwargs or {}))
        wide = [value for value in before if value.numel() == size]
        if not wide or result.numel() != size:
            return result
        within = self.path[-1] if self.path else ""
        if name in ADDED and len(wide) == 2 and not (kwargs or {}):
            self.block.additions.append(Step(wide, result.clone(), within))
        elif name in SCALED and len(wide) == 1:
            self.block.scalings.append(Step(wide, result.clone(), within))
        return result


@contextlib.contextmanager
def noted(blocks: list[torch.nn.Module]) -> Iterator[dict[int, list[Block]]]:
    """The notes of each block and call, filled while the model runs inside."""
    seen: dict[int, list[Block]] = {}
    handles: list[Any] = []
    for number, block in enumerate(blocks):
        path: list[str] = []
        handles += _watched(block, seen.setdefault(number, []), path)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watched(block: torch.nn.Module, calls: list[Block], path: list[str]) -> list[Any]:
    modes: list[Notes] = []

    def enter(_module: Any, args: Any, kwargs: Any) -> None:
        calls.append(Block(tensor(args or tuple(kwargs.values())).clone()))
        modes.append(Notes(calls[-1], path))
        modes[-1].__enter__()

    def leave(_module: Any, _args: Any, output: Any) -> None:
        modes.pop().__exit__(None, None, None)
        calls[-1].output = tensor(output).clone()

    def into(name: str) -> Any:
        return lambda *_: path.append(name) if modes else None

    def out(name: str, module: torch.nn.Module) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            # blocks may share an activation, which runs in the others too
            if not modes:
                return
            path.pop()
            given = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
            value = tensor(output)
            if value is not None and value.numel() == calls[-1].input.numel():
                label = f"{name}:{type(module).__name__}".lower()
                calls[-1].modules.append(Step([g.clone() for g in given], value.clone(), label))

        return hook

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True)]
    handles.append(block.register_forward_hook(leave))
    for name, module in block.named_modules():
        if module is not block:
            handles.append(module.register_forward_pre_hook(into(name)))
            handles.append(module.register_forward_hook(out(name, module), with_kwargs=True))
    return handles


def tensor(value: Any) -> Any:
    """The first tensor of what a module was given or returned; `None` without one."""
    if isinstance(value, torch.Tensor):
        return value
    inner = value.values() if hasattr(value, "values") else value
    if isinstance(inner, list | tuple) or hasattr(value, "values"):
        return next((t for t in map(tensor, inner) if t is not None), None)
    return None


def contributions(block: Block) -> dict[str, torch.Tensor] | None:
    """What the attention, the mlp and others (`mixer`) add to the stream in one call of a block.

    `None` where no chain of additions leads from the input to the output: the block normalises the
    stream itself, or keeps several.
    """
    # a block may norm its input first, and add to that (the first one of RWKV)
    starts = [block.input, *(step.operands[0] for step in block.additions)]
    chains = (_chain(block, start) for start in starts)
    return next((chain for chain in chains if chain is not None), None)


def _chain(block: Block, start: torch.Tensor) -> dict[str, torch.Tensor] | None:
    total: dict[str, torch.Tensor] = {}
    stream, last = start, None
    for step in block.additions:
        other = _other(step, stream)
        if other is None:
            continue
        for label, value in _parts(block, step, other):
            total[label] = total[label] + value if label in total else value
        stream = last = step.result
    if last is None or block.output is None or not same(stream, block.output):
        return None
    return total


def _other(step: Step, stream: torch.Tensor) -> torch.Tensor | None:
    first, second = step.operands
    if same(first, stream):
        return second
    return first if same(second, stream) else None


def _parts(block: Block, until: Step, value: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """A value that was added, split where the block itself had added its parts before."""
    sums = [s for s in block.additions if s is not until and not s.within and same(s.result, value)]
    if sums:
        return [part for operand in sums[-1].operands for part in _parts(block, sums[-1], operand)]
    return [(label(block, value), value)]


def label(block: Block, value: torch.Tensor, deep: int = 6) -> str:
    """The part of a block that made a value, seen through norms, dropouts and scalings."""
    makers = [step for step in block.modules if same(step.result, value)]
    for maker in sorted(makers, key=lambda step: step.within.count(".")):
        name, _, kind = maker.within.partition(":")
        if any(word in kind for word in ("norm", "dropout")):
            continue
        if "conv" in name:
            return "mixer"  # its class bears the architecture's name, which may say "moe"
        if any(word in f"{name}:{kind}" for word in ATTENTION):
            return "attention"
        return "mlp" if any(word in f"{name}:{kind}" for word in MLP) else "mixer"
    sources = [operand for maker in makers for operand in maker.operands]
    sources += [s.operands[0] for s in block.scalings if same(s.result, value)]
    fitting = [source for source in sources if source.numel() == value.numel()]
    for source in fitting if deep else []:
        found = label(block, source, deep - 1)
        if found != "unknown":
            return found
    return "unknown"
