"""Proof, at a model's first generation, that its steps under the cache say what a forward says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from nnsight import TransformersModel

from tracekit.origin import FLOATS, origin
from tracekit.probe import probe

STEPS = 3
# nats below the best that rounding explains
SLACK, SLACK_16 = 1e-3, 0.5
Step = Callable[[TransformersModel, torch.Tensor, int], list[int]]


def require_steps(model: TransformersModel, step: Step) -> None:
    """Refuse a model whose generated ids are not those of its own forwards.

    `step` continues one row of ids greedily. Some architectures count positions in another way
    while they generate (RoBERTa's family), and would write text that no forward of theirs
    predicts. Proved once for each loaded model, without edits; a remote one is not proved.

    Errors: `ValueError` naming the step and both ids.
    """
    about = origin(model)
    if about.remote or "steps" in about.proved:
        return
    if "steps" not in about.refused:
        reason = _reason(about.root, step)
        if reason is None:
            about.proved.add("steps")
            return
        about.refused["steps"] = reason
    raise ValueError(
        f"{about.name}: generation was asked for, but {about.refused['steps']} "
        "Generate its text with other means, and pass it to encode as responses=."
    )


def _reason(model: TransformersModel, step: Step) -> str | None:
    batch = probe(model)
    ids = batch.input_ids[0, batch.attention_mask[0].bool()]
    said = step(model, ids, STEPS)
    whole = torch.cat([ids, torch.tensor(said, dtype=ids.dtype)])
    with torch.no_grad():
        module = model._module
        logits = module(input_ids=whole[None].to(module.device), use_cache=False).logits[0]
    return _unlike(logits.float().cpu().log_softmax(-1)[len(ids) - 1 :], said, _slack(model))


def _slack(model: TransformersModel) -> float:
    exact = origin(model).dtype in FLOATS and not origin(model).dtype.endswith("16")
    return SLACK if exact else SLACK_16


def _unlike(scores: torch.Tensor, said: Sequence[int], slack: float) -> str | None:
    for number, token in enumerate(said):
        best = int(scores[number].argmax())
        below = float(scores[number, best] - scores[number, token])
        if below > slack:
            return (
                f"at step {number} it goes on with the id {token}, and its own forward over the "
                f"same ids with {best}, {below:.3g} nats above: it counts positions in another way "
                "while it generates."
            )
    return None
