"""Proof, at a model's first generation, that its steps under the cache say what a forward says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nnsight import TransformersModel

from tracekit.origin import FLOATS, origin
from tracekit.probe import probe

STEPS = 3
# nats that rounding explains: a step under the cache adds in another order than a whole forward
SLACK, SLACK_16 = 1e-6, 0.05
Step = Callable[[TransformersModel, torch.Tensor, int], torch.Tensor]


def require_steps(model: TransformersModel, step: Step) -> None:
    """Refuse a model that predicts something else while it generates than in a forward.

    `step` gives the logits (step, vocabulary) of the tokens that a row goes on with, greedily.
    Some architectures count positions in another way while they generate (RoBERTa's family), and
    would write text that no forward of theirs predicts. Proved once for each loaded model,
    without edits; a remote one is not proved.

    Errors: `ValueError` naming the step and the divergence.
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
    steps = step(model, ids, STEPS)
    whole = torch.cat([ids, steps.argmax(-1)[:-1].to(ids)])
    with torch.no_grad():
        module = model._module
        logits = module(input_ids=whole[None].to(module.device), use_cache=False).logits[0]
    return _unlike(logits.float().cpu()[len(ids) - 1 :], steps, _slack(model))


def _slack(model: TransformersModel) -> float:
    exact = origin(model).dtype in FLOATS and not origin(model).dtype.endswith("16")
    return SLACK if exact else SLACK_16


def _unlike(forward: torch.Tensor, steps: torch.Tensor, slack: float) -> str | None:
    expected, said = forward.log_softmax(-1), steps.log_softmax(-1)
    nats = (expected.exp() * (expected - said)).sum(-1)
    for number, value in enumerate(nats.tolist()):
        if not value <= slack:
            return (
                f"at step {number} its prediction is {value:.3g} nats from that of its own forward "
                f"over the same ids (bound {slack:g}): it counts positions in another way while "
                "it generates."
            )
    return None
