"""Fingerprints of weights: any changed value shows, wherever the tensors lie."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Collection, Iterator, Mapping

import torch

from tracekit.storage.identity import digest


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash over names, shapes, types and the bits of every value; any changed weight shows.

    The bits are summed along both sides of a table where the tensor lies, so that 40 GB on a GPU
    take seconds. Tensors without data (offloaded, remote) count by name, shape and type alone.
    """
    parts = [
        (name, list(tensor.shape), str(tensor.dtype), _sums(whole(tensor.detach())))
        for name, tensor in sorted(tensors.items())
    ]
    return digest(parts)


def weights_fingerprint(module: torch.nn.Module, names: Collection[str] | None = None) -> str:
    """The fingerprint of a model's parameters, wherever they lie; of those of some `names` alone.

    Names are those that parameters have without an adapter, be one attached or not.
    Parameters that accelerate offloaded are read from where it put them; those that are split over
    ranks are put together one at a time, so that the same weights have the same fingerprint.
    """
    there = {_own_name(name): (name, p) for name, p in module.named_parameters()}
    chosen = there if names is None else [name for name in names if name in there]
    return fingerprint({name: _here(module, *there[name]) for name in chosen})


class Watch:
    """The parameters that a fingerprint was taken of, and whether they are those still.

    A write through `.data` leaves no mark, and quantised or absent ones are not watched.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.names = frozenset(_own_name(name) for name, _ in module.named_parameters())
        self._marks = {id(p): (weakref.ref(p), *_mark(p)) for p in _watched(module)}

    def again(self, module: torch.nn.Module) -> Watch:
        """The same of the parameters as they are."""
        made = Watch(module)
        made.names = self.names
        return made

    def is_over(self, module: torch.nn.Module) -> bool:
        """Whether one was written in place, moved, or put in another's place."""
        now = {id(p): p for p in _watched(module)}
        return any(
            key not in now or held() is not now[key] or (version, place) != _mark(now[key])
            for key, (held, version, place) in self._marks.items()
        )


def _own_name(name: str) -> str:
    # peft puts a module that it adapts under one of these
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def _watched(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    for parameter in module.parameters():
        here = not (parameter.is_meta or parameter.is_inference() or _is_split(parameter))
        if here and parameter.is_floating_point():
            yield parameter


def _mark(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor._version, tensor.data_ptr()


def _is_split(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, put together if its pieces lie on several ranks (all of which must ask).

    >>> whole(torch.ones(2)).shape
    torch.Size([2])
    """
    return tensor.full_tensor() if _is_split(tensor) else tensor  # type: ignore[attr-defined]


def _here(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> torch.Tensor:
    if not parameter.is_meta:
        return parameter
    owner, _, own = name.rpartition(".")
    # accelerate keeps what it took off the device in its hook on the owning module
    held = getattr(getattr(module.get_submodule(owner), "_hf_hook", None), "weights_map", None)
    return parameter if held is None else held[own]


def _sums(tensor: torch.Tensor, columns: int = 4096) -> str:
    if tensor.is_meta or tensor.numel() == 0:
        return ""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    even = len(flat) // (8 * columns) * 8 * columns
    hashed = hashlib.sha256(flat[even:].cpu().numpy().tobytes())
    if even:
        table = flat[:even].view(torch.int64).reshape(-1, columns)
        for side in (0, 1):
            hashed.update(table.sum(side).cpu().numpy().tobytes())
    return hashed.hexdigest()
