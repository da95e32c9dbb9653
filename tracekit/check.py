"""Proof at load that the names mean what they say: at most seven forwards of a two-row probe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit import logits, sites
from tracekit.origin import QUANTISED, origin
from tracekit.tensors import Batch
from tracekit.transition import turned
from tracekit.tuners import adapter_name, adapter_tensors, current_adapter, tuner_layers

LENGTHS = (7, 4)
# the largest ‖difference‖ / ‖value‖ of one token that rounding explains
TOLERANCE: Mapping[str, float] = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2}
TOLERANCE_16 = 1e-1
TOLERANCE_QUANTISED = 3e-1


def check(model: TransformersModel) -> None:
    """Raise unless the model's names, padding, edits and adapter do what they promise.

    Shapes; log-probabilities are log_softmax of what the model puts out by itself; block l's
    output equals transformers' `hidden_states[l + 1]` for all but the last block and differs
    there; input + attention + mlp = output; batched equals single, within a tolerance
    that depends on dtype; changing a value moves the logits; with an adapter: it differs from the
    bare base, its B is not zero, and the base is bit for bit what it was before attaching.

    Errors: `ValueError` naming the site, the layer and both numbers.

    >>> check(load("smollm2-135m-instruct", check=False))
    """
    verify(model)
    if current_adapter(model) is not None:
        verify_adapter(model)


def reference_logits(model: TransformersModel) -> logits.Logits:
    """The probe's logits, to know the bare base again."""
    with torch.no_grad(), model.trace(probe(model).model_inputs):
        found = nnsight.save(logits.read(model))
    return found.cpu()


def verify(model: TransformersModel) -> logits.Logits:
    """Every check that needs no adapter; the probe's logits."""
    batch = probe(model)
    seen = _everything(model, batch)
    _check_logits(model, seen, batch)
    _check_shapes(model, seen, batch)
    _check_hidden_states(model, seen, batch)
    _check_sum(model, seen, batch)
    for row in range(len(LENGTHS)):
        _check_single(model, seen, batch, row)
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
        raise ValueError(
            f"The adapter {name!r} has lora_B = 0 in all {pairs} modules, so it changes nothing: "
            "its weights did not land, or it was never trained."
        )
    with_adapter = reference_logits(model)
    with turned(model, False):
        without = reference_logits(model)
    if torch.equal(with_adapter, without):
        raise ValueError(f"The adapter {name!r} is on and changes no logit of the probe.")
    if about.reference is not None and not torch.equal(without, about.reference):
        off = float((without - about.reference).abs().max())
        raise ValueError(
            f"With the adapter {name!r} switched off, the logits differ by up to {off:.3g} from "
            f"those before it was attached; {len(tuner_layers(model._module))} modules hold it. "
            "Load the base again and report the adapter."
        )


def probe(model: TransformersModel) -> Batch:
    """Two rows of unequal length, left-padded: what every check runs on."""
    vocabulary = model._module.config.get_text_config().vocab_size
    width = max(LENGTHS)
    ids = torch.zeros(len(LENGTHS), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, width - length :] = (torch.arange(length) * 37 + 11 * row + 5) % vocabulary
        mask[row, width - length :] = 1
    starts = torch.full((len(LENGTHS),), width)
    return Batch(ids, mask, starts, tuple(f"probe/{n}" for n in range(len(LENGTHS))))


def _everything(model: TransformersModel, batch: Batch) -> dict[str, Any]:
    summed = [n for n in range(len(model.layers)) if _is_sum(model, n)]
    options = {"output_hidden_states": True}
    with _given(model) as given, torch.no_grad(), model.trace(batch.model_inputs, **options):
        embedding = nnsight.save(sites.first(model.layers[0].input))
        sums, outputs = nnsight.save({}), nnsight.save([])
        for layer in range(len(model.layers)):
            before = sites.first(model.layers[layer].input)
            if layer in summed:
                attention = sites.read(model, layer, "attention").reshape(before.shape)
                mlp = sites.read(model, layer, "mlp").reshape(before.shape)
                sums[layer] = before + attention + mlp.to(before.device)
            outputs.append(sites.first(model.layers[layer].output))
        hidden = nnsight.save(list(model.output.hidden_states))
        found = nnsight.save(logits.read(model))
    return {
        "given": given,
        "embedding": embedding.cpu(),
        "sum": {layer: x.cpu() for layer, x in sums.items()},
        "output": [x.cpu() for x in outputs],
        "logits": found.cpu(),
        "hidden": [x.cpu() for x in hidden],
    }


@contextlib.contextmanager
def _given(model: TransformersModel) -> Iterator[dict[str, Any]]:
    """What a trace hands to the model's forward."""
    given: dict[str, Any] = {}

    def note(_module: torch.nn.Module, _inputs: Any, keywords: dict[str, Any]) -> None:
        given.update(keywords)

    handle = model._module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield given
    finally:
        handle.remove()


def _check_logits(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    """Our log-probabilities are those of the model's output outside any trace; so is the lens."""
    about, ids, bound = origin(model), batch.input_ids, _tolerance(model)
    with torch.no_grad():
        output = model._module(**seen["given"])
    expected = (output[0] if isinstance(output, tuple) else output.logits).cpu()
    scores = expected[:, :-1].double().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    real = batch.attention_mask[:, :-1].bool()
    gap = float((logits.of_next(seen["logits"], ids) - scores)[real].abs().max())
    if not gap <= bound:
        raise ValueError(
            f"{about.name}: our log-probabilities of the probe differ from log_softmax of the "
            f"model's own output by {gap:.3g} nats (bound {bound:g}). Report this architecture; "
            "with check=False the residual stream can be read."
        )
    real = batch.attention_mask.bool()
    lens = torch.cat(list(logits.of_residuals(model, seen["output"][-1][real])))
    gap = _gap(expected[real], lens)
    if not gap <= bound:
        about.refused["unembed"] = (
            f"the last block's output leads to logits that differ by {gap:.3g} of their norm from "
            f"the model's own (bound {bound:g}): they are not made of it alone."
        )


def _is_sum(model: TransformersModel, layer: int) -> bool:
    parts = hasattr(model.layers[layer], "attn") and hasattr(model.layers[layer], "mlp")
    return parts and sites.unsummed(model) is None


def _check_shapes(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    config = model._module.config.get_text_config()
    expected = (*batch.input_ids.shape, config.hidden_size)
    for layer, value in enumerate(seen["output"]):
        if tuple(value.shape) != expected:
            raise ValueError(
                f"{origin(model).name}: the output of layers[{layer}] has the shape "
                f"{tuple(value.shape)}, not {expected} (row, column, dim). Is `layers` the list of "
                "decoder blocks? Pass rename= if not."
            )


def _check_hidden_states(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    states, outputs = seen["hidden"], seen["output"]
    if len(states) != len(outputs) + 1:
        raise ValueError(
            f"{origin(model).name}: {len(outputs)} blocks, but transformers reports "
            f"{len(states)} hidden states instead of {len(outputs) + 1}. Pass rename= so that "
            "`layers` is the list of decoder blocks."
        )
    real = batch.attention_mask.bool()
    gap = _gap(seen["embedding"][real], states[0][real])
    if gap > 0:
        raise ValueError(
            f"{origin(model).name}: residual, layer -1: ‖input of layers[0] − hidden_states[0]‖ / "
            f"‖input‖ is {gap:.3g}, where 0 was expected. Pass rename=, or check=False to go on."
        )
    for layer, value in enumerate(outputs):
        gap = _gap(value[real], states[layer + 1][real])
        last = layer == len(outputs) - 1
        if not last and gap > 0:
            raise ValueError(
                f"{origin(model).name}: residual, layer {layer}: ‖output − hidden_states"
                f"[{layer + 1}]‖ / ‖output‖ is {gap:.3g}, where 0 was expected. The names do not "
                "mean what they say; pass rename=, or check=False to go on."
            )
        if last and gap == 0 and _norms_at_the_end(model):
            raise ValueError(
                f"{origin(model).name}: residual, layer {layer}: the last block's output equals "
                "the final-normed hidden state, so it is not the residual stream. Pass rename=."
            )


def _check_sum(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    about, real, bound = origin(model), batch.attention_mask.bool(), _tolerance(model)
    for layer, total in seen["sum"].items():
        gap = _gap(seen["output"][layer][real], total[real])
        if gap <= bound:
            continue
        found = (
            f"layer {layer}: input + attention + mlp differs from the output by {gap:.3g} of its "
            f"norm (bound {bound:g}), so `attn` or `mlp` is not what it adds."
        )
        if not about.guessed:
            raise ValueError(
                f"{about.name}: {found} Pass rename=, or check=False for the residual stream alone."
            )
        # found by structure: the residual stream is known to be right, these two are refused
        about.refused |= {"attention": found, "mlp": found}
        return


def _check_single(model: TransformersModel, seen: dict[str, Any], batch: Batch, row: int) -> None:
    length = LENGTHS[row]
    ids = batch.input_ids[row : row + 1, -length:]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), model.trace(inputs) as tracer:
        outputs = nnsight.save([])
        for layer in range(len(model.layers)):
            outputs.append(sites.first(model.layers[layer].output))
        tracer.stop()
    for layer, value in enumerate(outputs):
        gap, bound = _gap(seen["output"][layer][row, -length:], value[0].cpu()), _tolerance(model)
        if gap > bound:
            raise ValueError(
                f"{origin(model).name}: residual, layer {layer}: row {row} batched with padding "
                f"differs from the row alone by {gap:.3g} of its norm (bound {bound:g}): padding "
                "or positions are not handled. Capture with batches of one (token_budget=1)."
            )


def _check_causal(model: TransformersModel, seen: dict[str, Any], batch: Batch) -> None:
    # into every other dim alone: a norm with a mean would take a constant out again
    middle = len(model.layers) // 2
    with torch.no_grad(), model.trace(batch.model_inputs):
        output = model.layers[middle].output
        hidden = sites.first(output).clone()
        hidden[..., ::2] += hidden.abs().amax() + 1
        model.layers[middle].output = (hidden, *output[1:]) if isinstance(output, tuple) else hidden
        found = nnsight.save(logits.read(model))
    if torch.equal(found.cpu(), seen["logits"]):
        raise ValueError(
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
