"""Fingerprints of weights: any changed value shows, wherever the tensors lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

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


def weights_fingerprint(module: torch.nn.Module) -> str:
    """The fingerprint of a model's parameters, wherever they lie.

    Parameters that accelerate offloaded are read from where it put them; those that are split over
    ranks are put together one at a time, so that the same weights have the same fingerprint.
    """
    return fingerprint({name: _here(module, name, p) for name, p in module.named_parameters()})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, put together if its pieces lie on several ranks (all of which must ask).

    >>> whole(torch.ones(2)).shape
    torch.Size([2])
    """
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


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
