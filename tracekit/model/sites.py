"""Where in a block a value is read: the stream, what is added to it, and what makes that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model import parts
from tracekit.model.checks import inside, proof
from tracekit.model.checks.probe import probe
from tracekit.model.heads import contributions
from tracekit.model.parts import first as first
from tracekit.model.parts import with_first as with_first
from tracekit.model.record import Origin, origin, parallel_degree
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.site_names import SITES as SITES
from tracekit.transcripts.site_names import require_site

Site = str | Callable[[Any], Any]


def read(
    model: TransformersModel, layer: int, site: Site, index: torch.Tensor | None = None
) -> torch.Tensor:
    """The value at a site of block `layer`, inside a trace; -1 is the embedding output.

    (row, column, …), or with `index` those of rows × columns alone: (place, …). `attention` and
    `mlp` are what each adds to the residual stream: after the post-norm on architectures that
    have one (Gemma2/3, OLMo2). `pattern` is −1 where the model masks. `check_layers` refuses the
    blocks that do not have a site as it is described.
    """
    if layer == -1:
        return _chosen(first(model.layers[0].input), index)
    block = model.layers[layer]
    if callable(site):
        return _chosen(site(block), index)
    if site == "heads":
        heads = parts.carried(block)
        added = contributions(block, _chosen(heads, index).flatten(0, -3))
        return added if index is not None else added.unflatten(0, heads.shape[:2])
    if site in parts.READERS:
        return _chosen(parts.read(block, site), index)
    module = block if site == "residual" else parts.part(block, site)
    return _chosen(first(module.output), index)


def write(model: TransformersModel, layer: int, site: str, value: torch.Tensor) -> None:
    """Inside a trace: `value` takes the place of a site of block `layer`; −1 is the embedding.

    Of `heads` it is what each hands to the output projection (`heads.read_heads`); `mlp_hidden`
    and what is added, or the sum, are as `read` gives them.
    """
    block = model.layers[max(layer, 0)]
    if layer == -1:
        block.input = value
    elif site == "heads":
        parts.carry(block, value)
    elif site == "mlp_hidden":
        parts.place(block, site).input = value
    else:
        module = block if site == "residual" else parts.part(block, site)
        module.output = with_first(module.output, value)


def _chosen(value: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    if index is None:
        return value
    # what has no axis of rows is flat already
    flat = value if value.ndim == 2 else value.flatten(0, 1)
    return flat.index_select(0, index.to(flat.device))


def check_layers(model: TransformersModel, layers: Sequence[int] | None, site: Site) -> list[int]:
    """The layers asked for, ascending; every block's for `None`.

    Errors: `ValueError` for none, for one out of range, for one named twice, for an unknown site
    or one that -1 (the embedding output) does not have, for `attention` or `mlp` where a block
    does not add it as it is, and for another site that a block lacks. What was not proved yet is
    proved now.
    """
    depth = len(model.layers)
    wanted = [int(layer) for layer in (range(depth) if layers is None else layers)]
    wrong = [layer for layer in wanted if not -1 <= layer < depth]
    if wrong or not wanted:
        raise InputError(
            f"Layers {wrong or 'none'} were asked for; this model has blocks 0 to {depth - 1}, "
            "and -1 is the embedding output. Count from 0."
        )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"Layers {wanted} name a layer twice; name each once.")
    if not callable(site):
        function = "a function of the block such as lambda block: block.attn.q_proj.output"
        require_site(site, function)
    if -1 in wanted and site != "residual":
        raise InputError("Layer -1 is the embedding output, which only site='residual' has.")
    if isinstance(site, str) and site != "residual":
        _refuse_unproved(model, wanted, site)
    return sorted(wanted)


def sizes(model: TransformersModel, layers: Sequence[int], site: str) -> tuple[int, ...]:
    """How long the axes of a site are, but for that of keys (a bound for `router`).

    Errors: `ValueError` for layers whose values are not of one size.
    """
    hidden = model._module.config.get_text_config().hidden_size
    found = {n: parts.sizes(model.layers[max(n, 0)], site, hidden) for n in layers}
    if len({*found.values()}) > 1:
        raise InputError(
            f"site={site!r} of layers {list(layers)} was asked for, and its sizes differ: {found}. "
            "Capture layers of one size at a time."
        )
    return found[layers[0]]


def watched(model: TransformersModel, tracer: Any) -> Any:
    """Inside a trace, before anything is read: the calls of each block and of its modules."""
    paths = [path for block in model.layers for path in (block.path, *_inside(block))]
    # in another type than the model's they are copies: a block may add in place
    return tracer.cache(modules=paths, include_inputs=True, dtype=torch.float64)


def prove(
    model: TransformersModel, calls: Any, outputs: Sequence[torch.Tensor], batch: Batch
) -> None:
    """Proves `attention` and `mlp`, each by itself, by a forward of `batch` that was watched.

    `outputs` are the blocks' own, in the type that the stream is held in.
    """
    ran = [
        proof.Ran(
            calls=_calls(calls, block.path, ""),
            modules={path: _calls(calls, path, name) for path, name in _inside(block).items()},
            parts=_parts(block),
            dtype=output.dtype,
        )
        for block, output in zip(model.layers, outputs, strict=True)
    ]
    refused = proof.unproved(ran, batch.attention_mask.bool())
    for layer, block in enumerate(model.layers):
        for site in parts.NAMES.keys() - _parts(block).keys():
            refused.setdefault(site, {})[layer] = (
                f"{parts.has(block, parts.NAMES[site])}. Pass rename= to load, or a function of "
                "the block."
            )
    origin(model).unproved = refused


def _parts(block: Any) -> dict[str, str]:
    envoys = {site: parts.part(block, site) for site in parts.NAMES}
    return {site: envoy.path for site, envoy in envoys.items() if hasattr(envoy, "_module")}


def _inside(block: Any) -> dict[str, str]:
    """The modules of a block by path, each with its name there."""
    children = {f"{block.path}.{name}": name for name, _ in block._module.named_children()}
    return {**dict.fromkeys(_parts(block).values(), ""), **children}


def _calls(cache: Any, path: str, name: str) -> list[proof.Call]:
    if path not in cache:
        return []
    seen = cache[path]
    given, output = (seen.input, seen.output) if len(seen) > 1 else ([seen.input], [seen.output])
    return [proof.Call(name, *call) for call in zip(given, output, strict=True)]


def _refuse_unproved(model: TransformersModel, layers: Sequence[int], site: str) -> None:
    about = origin(model)
    _refuse_split(model, site)
    reasons = _unproved_there(model, site) if about.remote is True else _reasons(about, site)
    refused = [layer for layer in layers if layer in reasons]
    if refused:
        right = [n for n in range(len(model.layers)) if n not in reasons]
        instead = f", or layers among {right}" if right else ""
        raise InputError(
            f"site={site!r} was asked for, but at layers[{refused[-1]}] of {about.name} "
            f"{reasons[refused[-1]]} Use site='residual'{instead}."
        )


def _refuse_split(model: TransformersModel, site: str) -> None:
    ranks = parallel_degree(model._module)
    if "head" in SITES[site] and ranks > 1:
        raise InputError(
            f"site={site!r} of {origin(model).name} was asked for, whose weights are split over "
            f"{ranks} ranks: each computes some heads alone. Load the model with device_map='auto'."
        )


def _unproved_there(model: TransformersModel, site: str) -> dict[int, str]:
    """Why blocks of a model on a server do not have a site, as far as its modules say."""
    if site == "pattern":
        raise InputError(
            f"site='pattern' of {origin(model).name} was asked for, which is on a server: its "
            "attention cannot be made to say its pattern from here. Load the model here."
        )
    warnings.warn(
        f"site={site!r} of {origin(model).name} is read unproved: its weights are on the server. "
        "Load the model here once, or use site='residual'.",
        stacklevel=5,
    )
    return {} if site in parts.NAMES else inside.absent(model, site)


def _reasons(about: Origin, site: str) -> dict[int, str]:
    """Why blocks do not have a site, proved once."""
    if about.unproved is None:
        batch, root = probe(about.root), about.root
        with torch.no_grad(), root.trace(batch.model_inputs) as tracer:
            calls = watched(root, tracer)
            outputs = nnsight.save([first(block.output) for block in root.layers])
            tracer.stop()
        prove(root, calls, outputs, batch)
    assert about.unproved is not None
    if site not in (*parts.NAMES, *about.unproved):
        added = about.unproved.get("attention", {}) if site == "heads" else {}
        about.unproved[site] = {**inside.lacking(about.root, site), **added}
    return about.unproved.get(site, {})
