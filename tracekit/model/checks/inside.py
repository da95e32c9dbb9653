"""Proof that what is read inside attention and MLP is what it is called, by one forward a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.model import parts
from tracekit.model.attention import eager
from tracekit.model.checks.probe import probe
from tracekit.model.heads import contributions
from tracekit.model.record import origin

# the largest ‖difference‖ / ‖value‖ that rounding explains; int8 also rounds what comes in
BOUNDS: Mapping[str, float] = {"float64": 1e-6, "float32": 1e-4, "int8": 1e-1}
BOUND_16 = 3e-2
ADVICE = "Pass rename= to load, or a function of the block as site=."


def lacking(model: TransformersModel, site: str) -> dict[int, str]:
    """Why blocks do not have a site inside attention or MLP; those that have it are left out.

    A forward of the probe is read at every block that has the modules of the site.
    """
    reasons = absent(model, site)
    there = [layer for layer in range(len(model.layers)) if layer not in reasons]
    if there:
        reasons |= _unlike(model, site, there)
    return {layer: reason for layer, reason in reasons.items() if reason}


def absent(model: TransformersModel, site: str) -> dict[int, str]:
    """Why blocks do not have the modules of a site; no forward is run."""
    reasons = {n: _absent(block, site) for n, block in enumerate(model.layers)}
    return {layer: reason for layer, reason in reasons.items() if reason}


def _absent(block: Any, site: str) -> str:
    name = "mlp" if site in ("mlp_hidden", "router") else "attn"
    if site == "pattern":
        known = hasattr(getattr(block, name, None), "_module")
    elif site == "heads":
        known = parts.heads_of(block)[0] > 0
    elif site in parts.PROJECTED:
        return _unprojected(block, site)
    else:
        known = parts.place(block, site) is not None
    return "" if known else f"{parts.has(block, name)}: nothing there is known to give it. {ADVICE}"


def _unprojected(block: Any, site: str) -> str:
    heads, width = parts.heads_of(block)
    if parts.projected_heads(block, site):
        return ""
    if not heads or parts.projection(block, site) is None:
        return f"{parts.has(block, 'attn')}: nothing there is known to give it. {ADVICE}"
    return (
        f"its projection gives {parts.outputs_of(parts.projection(block, site))} numbers a token, "
        f"where its attention puts out {heads} heads of {width}: how they lie is not known. "
        f"{ADVICE}"
    )


def _unlike(model: TransformersModel, site: str, layers: Sequence[int]) -> dict[int, str]:
    batch, bound = probe(model), BOUNDS.get(origin(model).dtype, BOUND_16)
    real, prove = batch.attention_mask.bool(), PROOFS.get(site, _projected)
    with eager(model, site == "pattern"), torch.no_grad():
        with model.trace(batch.model_inputs, use_cache=False) as tracer:
            seen = nnsight.save([])
            for layer in layers:
                seen.append(_values(model.layers[layer], site))
            tracer.stop()
        blocks = zip(layers, seen, strict=True)
        return {n: prove(model.layers[n], real, bound, *values) for n, values in blocks}


def _values(block: Any, site: str) -> list[Any]:
    """What a site's proof looks at, in the order in which a forward makes it."""
    if site == "heads":
        return [parts.carried(block), parts.first(parts.part(block, "attention").output)]
    if site == "pattern":
        output = block.attn.output
        return [output[1] if isinstance(output, tuple | list) and len(output) > 1 else None]
    if site == "mlp_hidden":
        return [parts.place(block, site).output, parts.first(block.mlp.output)]
    if site == "router":
        return [parts.place(block, site).input, parts.place(block, site).output]
    # the layout of one projection to all three is proved by the values
    if site == "values" or parts.place(block, site) is None:
        return [parts.read(block, "values"), parts.carried(block)]
    return []


def _heads(block: Any, real: torch.Tensor, bound: float, heads: Any, output: Any) -> str:
    made = contributions(block, heads[real]).sum(1)
    if parts.part(block, "attention") is block.attn:
        nothing = torch.zeros_like(heads[:1, 0].flatten(1))
        made = made + parts.place(block, "output projection")(nothing)
    gap = _gap(output.reshape(*real.shape, -1)[real], made)
    return _beyond(gap, bound, "the sum over its heads", "what its attention adds")


def _projected(block: Any, real: torch.Tensor, bound: float, *seen: torch.Tensor) -> str:
    """A row's first token sees itself alone, so its heads put out its values (scaled, at most)."""
    if not seen:
        return ""
    rows, first = torch.arange(len(real)), real.long().argmax(1)
    values, heads = (value[rows, first].float() for value in seen)
    values = values.repeat_interleave(heads.shape[1] // values.shape[1], 1)
    gap = _gap(*(torch.nn.functional.normalize(value, dim=-1) for value in (heads, values)))
    return _beyond(gap, bound, "a first token's values", "what its heads put out")


def _pattern(block: Any, real: torch.Tensor, bound: float, weights: Any) -> str:
    square = (*real.shape, real.shape[1])
    if not isinstance(weights, torch.Tensor) or weights.select(1, 0).shape != square:
        return f"{parts.has(block, 'attn')} and puts out no pattern. {ADVICE}"
    rows = weights.transpose(1, 2)[real].float().sum(-1)
    return _beyond(float((rows - 1).abs().max()), bound, "the sum of a row of its pattern", "1")


def _hidden(block: Any, real: torch.Tensor, bound: float, projected: Any, output: Any) -> str:
    gap = _gap(output.flatten(0, -2), projected.flatten(0, -2))
    return _beyond(gap, bound, "its down projection", "what its mlp puts out")


def _router(block: Any, real: torch.Tensor, bound: float, given: Any, output: Any) -> str:
    module = parts.place(block, "router")._module
    if not isinstance(output, tuple):
        return ""
    bias = getattr(module, "bias", None)
    logits = torch.nn.functional.linear(given.flatten(0, -2), module.weight, bias)
    shapes = [tuple(value.shape) for value in (logits, output[0])]
    if shapes[0] != shapes[1]:
        return f"its router puts out {shapes[1]}, and not the logits {shapes[0]}. {ADVICE}"
    return _beyond(_gap(logits, output[0]), bound, "its router's logits", "what it puts out")


def _gap(expected: torch.Tensor, value: torch.Tensor) -> float:
    """The largest ‖expected − value‖ / ‖expected‖."""
    expected, value = expected.float(), value.float()
    size = expected.norm(dim=-1).clamp(min=1e-12)
    return float(((expected - value).norm(dim=-1) / size).max())


def _beyond(gap: float, bound: float, what: str, other: str) -> str:
    if gap <= bound:
        return ""
    return f"{what} and {other} differ by {gap:.3g} (bound {bound:g}). {ADVICE}"


PROOFS: Mapping[str, Callable[..., str]] = {
    "heads": _heads,
    "pattern": _pattern,
    "mlp_hidden": _hidden,
    "router": _router,
}
