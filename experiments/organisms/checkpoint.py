"""The state of a training run on disk, without pickle: weights, optimiser moments, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tracekit.errors import InputError
from tracekit.storage.files import whole

LOSSES = "losses"
Named = Mapping[str, torch.nn.Parameter]


def save(
    path: Path, named: Named, optimizer: torch.optim.Optimizer, losses: Sequence[float]
) -> None:
    """Write `named` parameters, their Adam moments and the loss of each finished step to `path`.

    It appears under its name only when complete.
    """
    tensors = {f"weight/{name}": p.detach().cpu().contiguous() for name, p in named.items()}
    for name, parameter in named.items():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"{key}/{name}": value.cpu().contiguous() for key, value in state.items()}
    tensors[LOSSES] = torch.tensor(list(losses), dtype=torch.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, sum(tensor.nbytes for tensor in tensors.values())) as part:
        save_file(tensors, part)


def load(path: Path, named: Named, optimizer: torch.optim.Optimizer) -> list[float]:
    """Put what `save` wrote back into the parameters and the optimiser; the losses until then.

    None, with nothing changed, where there is no file. Errors: `ValueError` when the file is of
    other parameters.
    """
    if not path.is_file():
        return []
    with safe_open(path, framework="pt") as content:
        kinds = _kinds([key for key in content.keys() if key != LOSSES])  # noqa: SIM118
        if set(kinds.get("weight", ())) != set(named):
            raise InputError(
                f"The checkpoint {str(path)!r} holds other parameters than this adapter. "
                "Remove it, or train with the settings that made it."
            )
        for name, parameter in named.items():
            parameter.data.copy_(content.get_tensor(f"weight/{name}"))
            moments = {key: names for key, names in kinds.items() if key != "weight"}
            state = {
                key: _like(content.get_tensor(f"{key}/{name}"), parameter)
                for key, names in moments.items()
                if name in names
            }
            if state:
                optimizer.state[parameter] = state
        return content.get_tensor(LOSSES).tolist()


def _kinds(keys: list[str]) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for key in keys:
        kind, name = key.split("/", 1)
        kinds.setdefault(kind, set()).add(name)
    return kinds


def _like(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    return value.to(parameter.device) if value.dim() else value  # Adam keeps its count on the CPU
