"""Proof that the names mean what they say: at most seven forwards of a two-row probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model import head, sites
from tracekit.model.adapters.layers import (
    adapter_name,
    adapter_tensors,
    current_adapter,
    tuner_layers,
)
from tracekit.model.adapters.transition import turned
from tracekit.model.checks.probe import LENGTHS, probe
from tracekit.model.record import QUANTISED, origin
from tracekit.transcripts.padded import Batch

# the largest ‖difference‖ / ‖value‖ of one token that rounding explains
TOLERANCE: Mapping[str, float] = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2}
TOLERANCE_16 = 1e-1
TOLERANCE_QUANTISED = 3e-1


def check(model: TransformersModel) -> None:
    """Raise unless the model's names, padding, edits and adapter do what they promise.

    Shapes; log-probabilities are log_softmax of what the model puts out by itself; block l's
    output equals transformers' `hidden_states[l + 1]` for all but the last block and differs
    there; a batched row equals the row alone (or each row is a batch from now on), within a
    tolerance that depends on dtype; changing a value moves the logits; with an adapter: it differs
    from the bare base, its B is not zero, and the base is bit for bit what it was before attaching.

    Errors: `ValueError` naming the site, the layer and both numbers.

    >>> check(model)
    """
    about = origin(model)
    if not (about.settle() and model is about.root):
        verify(model)
    if current_adapter(model) is not None:
        verify_adapter(model)


def reference_logits(model: TransformersModel) -> head.Logits:
    """The probe's logits, to know the bare base again."""
    with torch.no_grad(), model.trace(probe(model).model_inputs):
        logits = nnsight.save(head.read(model))
    return logits.cpu()


def verify(model: TransformersModel) -> head.Logits:
    """Every check that needs no adapter; the probe's logits."""
    batch = probe(model)
    seen = _everything(model, batch)
    _check_shapes(model, seen, batch)
    _check_hidden_states(model, seen, batch)
    sites.prove(model, seen["calls"], seen["output"], batch)
    _check_logits(model, seen, batch)
    _check_later(model, seen, batch)
    _check_single(model, seen, batch, row=LENGTHS.index(min(LENGTHS)))
    _check_causal(model, seen, batch)
    return seen["logits"]


def verify_adapter(model: TransformersModel) -> None:
    """The adapter that is on changes the logits, and switched off leaves no trace."""
    about, name = origin(model), adapter_name(current_adapter(model) or "")
    zero = [
        path
        for path, tensor in adapter_tensors(model._module).items()
        if ".lora_B." in f".{path}" and not bool(tensor.any())
    ]
    pairs = sum(".lora_B." in f".{p}" for p in adapter_tensors(model._module))
    if pairs and len(zero) == pairs:
        raise InputError(
            f"The adapter {name!r} has lora_B = 0 in all {pairs} modules, so it changes nothing: "
            "its weights did not land, or it was never trained."
        )
    with_adapter = reference_logits(model)
    with turned(model, False):
        without = reference_logits(model)
    if torch.equal(with_adapter, without):
        raise InputError(f"The adapter {name!r} is on and changes no logit of the probe.")
    if about.reference is not None and not torch.equal(without, about.reference):
        off = float((without - about.reference).abs().max())
        raise InputError(
            f"With the adapter {name!r} switched off, the logits differ by up to {off:.3g} from "
            f"those before it was attached; {len(tuner_layers(model._module))} modules hold it. "
            "Load the base again and report the adapter."
        )


def _everything(model: TransformersModel, batch: Batch) -> dict[str, Any]:
    options = {"output_hidden_states": True}
    with torch.no_grad(), model.trace(batch.model_inputs, **options) as tracer:
        calls = sites.watched(model, tracer)
        given = nnsight.save(model.inputs[1])
        inputs, outputs = nnsight.save([]), nnsight.save([])
        for block in model.layers:
            inputs.append(sites.first(block.input))
            outputs.append(sites.first(block.output))
        hidden = nnsight.save(list(model.output.hidden_states or []))
        logits = nnsight.save(head.read(model))
    return {
        "given": given,
        "calls": calls,
        "input": [x.cpu() for x in inputs],
        "output": [x.cpu() for x in outputs],
        "logits": logits.cpu(),
        "hidden": [x.cpu() for x in hidden],
    }


def _check_logits(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    """Log-probabilities, and the lens, are those of the model's output outside any trace."""
    about, ids, bound = origin(model), batch.input_ids, _tolerance(model)
    with torch.no_grad():
        expected = head.of_output(model._module(**seen["given"])).cpu()
    scores = expected[:, :-1].double().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    real = batch.attention_mask[:, :-1].bool()
    gap = float((head.of_next(seen["logits"], ids) - scores)[real].abs().max())
    if not gap <= bound:
        raise InputError(
            f"{about.name}: our log-probabilities of the probe differ from log_softmax of the "
            f"model's own output by {gap:.3g} nats (bound {bound:g}). Report this architecture; "
            "with check=False the residual stream can be read."
        )
    real = batch.attention_mask.bool()
    lens = torch.cat(list(head.of_residuals(model, seen["output"][-1][real])))
    gap = _gap(expected[real], lens)
    if not gap <= bound:
        about.refused["unembed"] = (
            f"the last block's output leads to logits that differ by {gap:.3g} of their norm from "
            f"the model's own (bound {bound:g}): they are not made of it alone."
        )


def _check_shapes(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    config = model._module.config.get_text_config()
    expected = (*batch.input_ids.shape, config.hidden_size)
    for layer, value in enumerate(seen["output"]):
        shape = tuple(value.shape)
        if len(shape) > 3:
            raise InputError(
                f"{origin(model).name}: the output of layers[{layer}] has the shape {shape}: its "
                "blocks carry several residual streams and mix them, so there is no residual "
                f"stream {expected} (row, column, dim) to read. This architecture is not "
                "supported; check=False allows nnsight's own traces."
            )
        if shape != expected:
            raise InputError(
                f"{origin(model).name}: the output of layers[{layer}] has the shape {shape}, not "
                f"{expected} (row, column, dim). Is `layers` the list of decoder blocks, in which "
                "every token has one column? Pass rename= if not."
            )


def _check_hidden_states(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    """Each block's output is what transformers reports, or what the next block is given."""
    states, inputs, outputs = seen["hidden"], seen["input"], seen["output"]
    real, last = batch.attention_mask.bool(), len(outputs) - 1
    reported = states if len(states) == len(outputs) + 1 else [None] * (len(outputs) + 1)
    for layer, value in enumerate(outputs[:-1]):
        known = [x for x in (reported[layer + 1], inputs[layer + 1]) if x is not None]
        gap = min(_gap(value[real], x[real]) for x in known)
        if gap > 0:
            raise InputError(
                f"{origin(model).name}: residual, layer {layer}: ‖output − hidden_states"
                f"[{layer + 1}]‖ / ‖output‖ is {gap:.3g}, where 0 was expected, and the next block "
                "is given another value too. The names do not mean what they say; pass rename=, or "
                "check=False to go on."
            )
    final = states[-1] if states else None
    if (
        final is not None
        and _norms_at_the_end(model)
        and _gap(outputs[last][real], final[real]) == 0
    ):
        raise InputError(
            f"{origin(model).name}: residual, layer {last}: the last block's output equals "
            "the final-normed hidden state, so it is not the residual stream. Pass rename=."
        )


def _check_later(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    """A token that changes moves no residual before it."""
    ids = batch.input_ids.clone()
    ids[:, -1] = batch.input_ids[:, -2]
    outputs = _outputs(model, {**batch.model_inputs, "input_ids": ids})
    earlier, bound = batch.attention_mask[:, :-1].bool(), _tolerance(model)
    for layer, value in enumerate(outputs):
        gap = _gap(seen["output"][layer][:, :-1][earlier], value[:, :-1][earlier])
        if not gap <= bound:
            raise InputError(
                f"{origin(model).name}: residual, layer {layer}: changing the last token moves the "
                f"residuals of earlier ones by {gap:.3g} of their norm (bound {bound:g}): it looks "
                "ahead, so it is not a causal language model. Set is_decoder=True in its "
                "configuration if it was trained as one."
            )


def _check_single(model: TransformersModel, seen: dict[str, Any], batch: Batch, row: int) -> None:
    """A row in a batch is as alone; on a model where it is not, each row is a batch from now on."""
    length = LENGTHS[row]
    ids = batch.input_ids[row : row + 1, -length:]
    outputs = _outputs(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    for layer, value in enumerate(outputs):
        gap, bound = _gap(seen["output"][layer][row, -length:], value[0]), _tolerance(model)
        if not gap <= bound:
            origin(model).refused["padding"] = (
                f"at layer {layer} its values depend on the padding: a row of {length} tokens "
                f"beside one of {max(LENGTHS)} differs from the row alone by {gap:.3g} of its norm "
                f"(bound {bound:g})."
            )
            return


def _outputs(model: TransformersModel, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What each block puts out, on the CPU."""
    with torch.no_grad(), model.trace(inputs) as tracer:
        outputs = nnsight.save([])
        for block in model.layers:
            outputs.append(sites.first(block.output))
        tracer.stop()
    return [value.cpu() for value in outputs]


def _check_causal(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    # into every other dim alone: a norm with a mean would take a constant out again
    middle = len(model.layers) // 2
    with torch.no_grad(), model.trace(batch.model_inputs):
        output = model.layers[middle].output
        hidden = sites.first(output).clone()
        hidden[..., ::2] += hidden.abs().amax() + 1
        model.layers[middle].output = sites.with_first(output, hidden)
        logits = nnsight.save(head.read(model))
    if torch.equal(logits.cpu(), seen["logits"]):
        raise InputError(
            f"{origin(model).name}: residual, layer {middle}: changing the block's output by its "
            "largest value moved no logit (largest change 0): edits would do nothing."
        )


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest ‖a − b‖ / ‖a‖ over tokens."""
    a, b = a.double(), b.double()
    return float(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp(min=1e-12)).max())


def _tolerance(model: TransformersModel) -> float:
    dtype = origin(model).dtype
    if dtype in QUANTISED:
        return TOLERANCE_QUANTISED
    return TOLERANCE.get(dtype, TOLERANCE_16)


def _norms_at_the_end(model: TransformersModel) -> bool:
    return hasattr(model, "norm") and not isinstance(model.norm._module, torch.nn.Identity)
