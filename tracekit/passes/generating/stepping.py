"""Proof, at a model's first generation, that its steps under the cache say what a forward says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model import head
from tracekit.model.checks.probe import probe
from tracekit.model.load import device_of
from tracekit.model.record import FLOATS, Origin, origin
from tracekit.model.threads import one_at_a_time
from tracekit.passes.generating.one_query import fused, one_query
from tracekit.transcripts.padded import Batch

STEPS = 3
# nats that rounding explains: a step under the cache adds in another order than a whole forward
SLACK, SLACK_16 = 1e-3, 0.05
Step = Callable[[TransformersModel, Batch, int], torch.Tensor | None]


def require_steps(model: TransformersModel, step: Step) -> None:
    """Refuse a model that predicts something else while it generates than in a forward.

    `step` gives the logits (row, step, vocabulary) of the tokens that a batch goes on with,
    greedily. Some architectures count positions in another way while they generate (RoBERTa's
    family), and would write text that no forward of theirs predicts. Proved once for each loaded
    model, without edits; a remote one is not proved. One whose steps are right but for padding is
    noted as not handling it.

    Errors: `ValueError` naming the step and the divergence.
    """
    about = origin(model)
    if about.remote or "steps" in about.proved:
        return
    if "steps" not in about.refused:
        reason = _reason(about, step)
        if reason is None:
            about.proved.add("steps")
            return
        about.refused["steps"] = reason
    raise InputError(
        f"{about.name}: generation was asked for, but {about.refused['steps']} "
        "Generate its text with other means, and pass it to encode as responses=."
    )


def quick_steps(model: TransformersModel, step: Step) -> bool:
    """Whether `step` under `one_query` says what a forward says; proved once.

    On a CPU, of a model whose own steps were proved; else False, and the model keeps its own way
    (a few architectures do something else under another name of attention).
    """
    about = origin(model)
    # a thread that generates now has the model attend by another name until it ends
    with one_at_a_time():
        if "steps" not in about.proved or device_of(model).type != "cpu" or not fused(model):
            return False
        if not {"quick steps", "own steps"} & about.proved:
            batch = probe(about.root)
            some = _first(batch) if "padding" in about.refused else batch
            wrong = _unlike(about.root, some, one_query(about.root)(step), slack(about))
            about.proved.add("own steps" if wrong else "quick steps")
        return "quick steps" in about.proved


def shared_steps(model: TransformersModel, step: Step) -> bool:
    """Whether `step`, of rows that begin alike, says what a forward says; proved once.

    `step` reads the common beginning once, so that a row's padding lies behind it. Not of a model
    whose rows go one by one.
    """
    about = origin(model)
    with one_at_a_time():
        if "steps" not in about.proved or "padding" in about.refused:
            return False
        if not {"shared steps", "steps apart"} & about.proved:
            wrong = _unlike(about.root, alike(probe(about.root)), step, slack(about))
            about.proved.add("steps apart" if wrong else "shared steps")
        return "shared steps" in about.proved


def alike(batch: Batch) -> Batch:
    """The rows of a batch behind the longest's ids: they begin alike.

    >>> ids = torch.tensor([[7, 8], [0, 9]])
    >>> alike(Batch(ids, (ids > 0).long(), torch.tensor([2, 2]), ("a", "b"))).input_ids.tolist()
    [[7, 8, 7, 8], [0, 7, 8, 9]]
    """
    longest = batch.input_ids[int(batch.attention_mask.sum(1).argmax())]
    width = len(longest)
    ids = torch.zeros(len(batch.input_ids), 2 * width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, real in enumerate(batch.attention_mask.bool()):
        whole = torch.cat([longest, batch.input_ids[row, real]])
        ids[row, -len(whole) :], mask[row, -len(whole) :] = whole, 1
    return Batch(ids, mask, batch.starts + width, batch.prompts)


def crossed(batch: Batch) -> Batch:
    """Each row of a batch as a prompt, with each row behind it as a response.

    >>> ids = torch.tensor([[7, 8], [0, 9]])
    >>> batch = Batch(ids, (ids > 0).long(), torch.tensor([2, 2]), ("a", "b"))
    >>> crossed(batch).input_ids.tolist()
    [[7, 8, 7, 8], [0, 7, 8, 9], [0, 9, 7, 8], [0, 0, 9, 9]]
    """
    texts = [
        row[real] for row, real in zip(batch.input_ids, batch.attention_mask.bool(), strict=True)
    ]
    pairs = [(before, after) for before in texts for after in texts]
    width = max(len(before) + len(after) for before, after in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (before, after) in enumerate(pairs):
        whole = torch.cat([before, after])
        ids[row, width - len(whole) :], mask[row, width - len(whole) :] = whole, 1
    starts = torch.tensor([width - len(after) for _, after in pairs])
    return Batch(ids, mask, starts, tuple(f"probe/{n}" for n in range(len(pairs))))


def _reason(about: Origin, step: Step) -> str | None:
    batch, bound = probe(about.root), slack(about)
    wrong = _unlike(about.root, _first(batch), step, bound)
    if wrong is not None:
        return f"{wrong}: it counts positions in another way while it generates."
    padded = None if "padding" in about.refused else _unlike(about.root, batch, step, bound)
    if padded is not None:
        # its rows go one by one from here on
        about.refused["padding"] = f"{padded} when rows of unequal length are padded."
    return None


def _first(batch: Batch) -> Batch:
    real = batch.attention_mask[0].bool()
    ids = batch.input_ids[:1, real]
    return Batch(ids, torch.ones_like(ids), torch.tensor([ids.shape[1]]), batch.prompts[:1])


def _unlike(model: TransformersModel, batch: Batch, step: Step, bound: float) -> str | None:
    steps = step(model, batch, STEPS)
    if steps is None:
        return "nothing can be shared"
    module = model._module
    for row, mask in enumerate(batch.attention_mask.bool()):
        ids = batch.input_ids[row, mask]
        whole = torch.cat([ids, steps[row].argmax(-1)[:-1].to(ids)])
        with torch.no_grad():
            given = whole[None].to(module.device)
            output = module(input_ids=given, use_cache=False)
        forward = head.of_output(output)[0, len(ids) - 1 :]
        for number, nats in enumerate(head.divergence(forward.cpu(), steps[row]).tolist()):
            if not nats <= bound:
                return (
                    f"at step {number} its prediction is {nats:.3g} nats from that of its own "
                    f"forward over the same ids (bound {bound:g})"
                )
    return None


def slack(about: Origin) -> float:
    """The nats that a step may be from a forward, by the model's dtype."""
    return SLACK if about.dtype in FLOATS and not about.dtype.endswith("16") else SLACK_16
