"""Several processes on one model: weights split over ranks, or a copy a rank and shared prompts.

A LoRA on weights that are split: peft gives the split half of it (B of a column-wise layer, A of a
row-wise one) transformers' transforms; nnsight keeps them only on modules that the model's plan
names.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
import torch.distributed
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.adapters.layers import tuner_layers
from tracekit.model.record import origin, parallel_degree

Value = TypeVar("Value")
HALVES = {"colwise": "lora_B", "rowwise": "lora_A"}


def join() -> tuple[int, int]:
    """This process's rank and the number of ranks that torchrun started, once all have met.

    Errors: `ValueError` outside torchrun.
    """
    if "WORLD_SIZE" not in os.environ:
        raise InputError(
            "data_parallel=True was asked for in a process that torchrun did not start. "
            "Run: torchrun --nproc-per-node 2 -m …"
        )
    if not torch.distributed.is_initialized():
        # labels and numbers travel; values stay where they are
        torch.distributed.init_process_group("gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def share(model: TransformersModel) -> tuple[int, int]:
    """Which part of the batches is this process's: (rank, ranks) of a copied model, else (0, 1)."""
    return origin(model).share


def writes(model: TransformersModel) -> bool:
    """Whether this process writes what it computes: of split weights, the first rank does."""
    return parallel_degree(model._module) == 1 or torch.distributed.get_rank() == 0


def wait(model: TransformersModel) -> None:
    """Go on when every rank is here."""
    if share(model)[1] > 1 or parallel_degree(model._module) > 1:
        torch.distributed.barrier()


def agreed(model: TransformersModel, value: Value) -> Value:
    """The first rank's value, on every rank: what each would find for itself may differ."""
    if share(model)[1] == 1 and parallel_degree(model._module) == 1:
        return value
    held = [value]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]


def gathered(model: TransformersModel, value: Value) -> list[Value]:
    """The values of all ranks that share the batches, in their order."""
    count = share(model)[1]
    if count == 1:
        return [value]
    everyone: list[Any] = [None] * count
    torch.distributed.all_gather_object(everyone, value)
    return everyone


def name_halves(root: TransformersModel, adapter: str = "default") -> None:
    """Before a LoRA is attached: the plan names the halves that peft will split."""
    if parallel_degree(root._module) > 1:
        plan = root._module._tp_plan
        bare = {path: style for path, style in plan.items() if ".lora_" not in path}
        # in place: nnsight holds this very dictionary
        plan.update({f"{p}.{HALVES[s]}.{adapter}": s for p, s in bare.items() if s in HALVES})


def forget_partial_sums(root: TransformersModel) -> None:
    """After a LoRA is attached: the output of a row-wise layer is whole where it was partial.

    The layer's own sum over ranks now happens inside the LoRA's module; nnsight, which still has
    the bare layer's rule under that path, would add it up a second time.
    """
    fragments: Any = root.interleaver.fragments
    if parallel_degree(root._module) == 1 or fragments is None:
        return
    held = {id(layer) for layer in tuner_layers(root._module)}
    for path, (style, _) in fragments.tp_styles.items():
        name = path.partition(".")[2]
        if style == "rowwise" and id(root._module.get_submodule(name)) in held:
            fragments.tp_rules.pop(f"{path}.output", None)
