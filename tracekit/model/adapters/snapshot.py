"""A model as it is at one moment, to put it back: all of it, its places, or its switches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.model.adapters.layers import tuner_layers

# a weight that is not a matrix is small enough to copy: norms and biases, 3 MB of a 70B model
COPIED_DIMS = 1


class Places:
    """Which module lies where: what attaching an adapter changes, and taking it out puts back.

    It holds no weights but those of an adapter that was on.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._root = module
        self._children = [(parent, dict(parent._modules)) for parent in module.modules()]
        self._config = module.__dict__.get("peft_config")

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters of what lies in these places, by name."""
        children = {id(parent): held for parent, held in self._children}
        named: dict[int, tuple[str, torch.Tensor]] = {}
        left = [("", self._root)]
        while left:
            path, module = left.pop(0)
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    named.setdefault(id(parameter), (path + name, parameter))
            inner = [(f"{path}{n}.", c) for n, c in children[id(module)].items() if c is not None]
            left = inner + left
        return dict(named.values())

    def are_there(self) -> bool:
        """Whether every module is in its place."""
        return all(parent._modules == children for parent, children in self._children)

    def restore(self) -> None:
        """Every module in its place; doing it again changes nothing."""
        for parent, children in self._children:
            _refill(parent._modules, children)
        self._root.__dict__.pop("peft_config", None)
        if self._config is not None:
            self._root.__dict__["peft_config"] = self._config


class Snapshot:
    """Everything that a change of a model's weights may touch, to put it back bit for bit.

    Modules, nnsight's view of them, and tensors: those written anew elsewhere are kept as they
    are (which costs no memory), small ones are copied. A matrix written over in place is noticed
    and cannot be put back.
    """

    def __init__(self, model: TransformersModel) -> None:
        module = model._module
        self._model = model
        self._held = [(part, _copied(part.__dict__)) for part in module.modules()]
        self._envoys = [(part, _copied(part.__dict__)) for part in _envoys(model)]
        self._weights = {name: _Tensor(tensor) for name, tensor in module.named_parameters()}
        self._buffers = {name: _Tensor(tensor) for name, tensor in module.named_buffers()}

    def restore(self) -> None:
        """Everything as it was; doing it again changes nothing."""
        for part, attributes in [*self._held, *self._envoys]:
            _refill_all(part.__dict__, attributes)
        for tensor in [*self._weights.values(), *self._buffers.values()]:
            tensor.restore()
        # an envoy that was half built would be found again under its module
        envoys = {id(part._module): part for part, _ in self._envoys}
        _refill(self._model.interleaver.envoys, envoys)
        self._model.interleaver.cancel()
        self._model._update(self._model._module)

    def rewritten(self) -> list[str]:
        """The names of the weights that may no longer hold what they held: moved or written to."""
        return [name for name, tensor in self._weights.items() if tensor.rewritten()]


class Switches:
    """What switching an adapter on or off may touch: flags of modules and parameters, no weight."""

    def __init__(self, model: TransformersModel) -> None:
        module = model._module
        parts = list(module.modules())
        tensors = [p for part in parts for p in part._parameters.values() if p is not None]
        self._held = [(layer, _copied(layer.__dict__)) for layer in tuner_layers(module)]
        self._training = [(part, part.training) for part in parts]
        self._learning = [(p, p.requires_grad) for p in tensors]

    def restore(self) -> None:
        """Every flag as it was; doing it again changes nothing."""
        for layer, attributes in self._held:
            _refill_all(layer.__dict__, attributes)
        for part, training in self._training:
            part.training = training
        for parameter, learns in self._learning:
            parameter.requires_grad_(learns)

    def rewritten(self) -> list[str]:
        """None: a switch writes to no weight."""
        return []


class _Tensor:
    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._data = tensor, tensor.data
        self._version, self._learns = tensor._version, tensor.requires_grad
        small = tensor.ndim <= COPIED_DIMS and not tensor.is_meta
        self._copy = tensor.detach().clone() if small else None

    def restore(self) -> None:
        if not self._same_place():
            self._tensor.data = self._data
        if self._copy is not None and not torch.equal(self._copy, self._tensor.detach()):
            self._tensor.data.copy_(self._copy)
        if self._tensor.requires_grad != self._learns:
            self._tensor.requires_grad_(self._learns)

    def rewritten(self) -> bool:
        if self._copy is not None:
            return not torch.equal(self._copy, self._tensor.detach())
        return not self._same_place() or self._tensor._version != self._version

    def _same_place(self) -> bool:
        now: Any = self._tensor.data
        then: Any = self._data
        # a tensor split over ranks has no address of its own
        if hasattr(now, "to_local"):
            now, then = now.to_local(), then.to_local()
        return now.shape == then.shape and now.data_ptr() == then.data_ptr()


def _envoys(envoy: Any) -> Iterator[Any]:
    seen, left = set(), [envoy]
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            left.extend(one._children)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """One level deep: what containers hold, not what is inside it."""
    return {k: v.copy() if isinstance(v, dict | list | set) else v for k, v in attributes.items()}


def _refill_all(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in attributes if name not in before]:
        del attributes[name]
    for name, value in before.items():
        now = attributes.get(name)
        if isinstance(now, dict) and isinstance(value, dict):
            _refill(now, value)
        else:
            attributes[name] = value.copy() if isinstance(value, dict | list | set) else value


def _refill(container: MutableMapping[Any, Any], before: Mapping[Any, Any]) -> None:
    # in place, since others hold the same dictionary
    container.clear()
    container.update(before)
