"""Loading models and switching adapters on one set of weights."""

from __future__ import annotations

import contextlib
import difflib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.provenance import fingerprint, versions
from tracekit.resources import EMBEDDED, datasets, embedded_model

# Module paths of known architectures → the standard names. A path that a model lacks is skipped.
STANDARD_NAMES: Mapping[str, str] = {
    "model.layers": "layers",
    "model.language_model.layers": "layers",
    "model.decoder.layers": "layers",
    "transformer.h": "layers",
    "gpt_neox.layers": "layers",
    "self_attn": "attn",
    "attention": "attn",
    "fc2": "mlp",  # OPT has no mlp module: fc2's output is what its mlp adds
    "model.embed_tokens": "embed",
    "model.language_model.embed_tokens": "embed",
    "model.decoder.embed_tokens": "embed",
    "transformer.wte": "embed",
    "gpt_neox.embed_in": "embed",
    "model.norm": "norm",
    "model.language_model.norm": "norm",
    "model.decoder.final_layer_norm": "norm",
    "transformer.ln_f": "norm",
    "gpt_neox.final_layer_norm": "norm",
    "embed_out": "lm_head",
}
QUANTISED = ("nf4", "fp4", "int4", "int8")
FLOATS = ("float32", "bfloat16", "float16", "float64")


@dataclass
class Origin:
    """What a loaded module is: kept on the torch module, read by provenance and `adapter`."""

    root: Any
    name: str
    revision: str | None
    dtype: str
    weights: str
    adapters: dict[str, str] = field(default_factory=dict)
    # the probe's logits before any adapter was attached; None when checks are off
    reference: torch.Tensor | None = None


def load(
    model: str | os.PathLike[str] | torch.nn.Module,
    *,
    adapter: str | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    remote: bool = False,
    check: bool = True,
    **kwargs: Any,
) -> TransformersModel:
    """An nnsight `TransformersModel` with the standard names, and an adapter attached if given.

    `model` is a hub id, a local folder, `"smollm2-135m-instruct"` (embedded) or a transformers
    module (then pass `tokenizer=`). `dtype` is a torch dtype, its name, or `nf4`, `int8` (through
    bitsandbytes); `auto` is float32 on CPU, bfloat16 on GPU. Standard names: `model.layers[i]`,
    `.attn`, `.mlp`, `model.embed`, `.norm`, `.lm_head`; pass `rename=` for a new architecture.
    `check=True` proves at load that the names mean what they say (`tracekit.check`). Other
    keywords go to transformers (`device_map`, `tp_plan`, `attn_implementation`, …).

    Errors: `ValueError` for an unknown name, dtype or architecture and for an adapter that does
    not fit; `FileNotFoundError` for a folder or hub id that cannot be reached.

    >>> model = load("smollm2-135m-instruct")
    >>> len(model.layers)
    30
    """
    source, name = _source(model)
    rename = {**STANDARD_NAMES, **kwargs.pop("rename", {})}
    settings = {**_precision(dtype, source), **kwargs}
    loaded = _build(source, name, rename, settings, revision=revision, remote=remote)
    _require_names(loaded, name)
    _freeze(loaded)
    _keep_nf4_as_stored(loaded._module)
    loaded._module.tracekit_origin = _origin(loaded, name, dtype, revision, remote)
    if check and not remote:
        from tracekit.check import reference_logits, verify

        origin(loaded).reference = reference_logits(loaded)
        verify(loaded)
    if adapter is not None:
        switch(loaded, adapter)
    return loaded


@contextlib.contextmanager
def adapter(model: TransformersModel, name: str | None) -> Iterator[TransformersModel]:
    """The same loaded weights with that adapter (`None`: bare), the former one back afterwards.

    `name` is a folder, a hub id, or a shipped organism (`"rm_sycophancy"`). Nests, and restores
    on exceptions. On an edited copy it acts on the model that was loaded, which the copy shares.

    Errors: `ValueError` for an adapter that does not fit this model or cannot be switched.

    >>> with adapter(model, None):
    ...     clean = capture(model, runs, layers=[12])
    """
    before = current_adapter(model)
    switch(model, name)
    try:
        yield model
    finally:
        switch(model, before)


def current_adapter(model: TransformersModel) -> str | None:
    """The name of the adapter that is attached and switched on, or `None`."""
    module = model._module
    attached = origin(model).root.peft
    return attached if attached is not None and _enabled(module) else None


def switch(model: TransformersModel, name: str | None) -> None:
    """Attach and switch on the adapter `name`, or switch off the one attached (`None`).

    An adapter that is switched off stays in memory, so that toggling one costs nothing; attaching
    another one takes its place.
    """
    about = origin(model)
    root, path = about.root, None if name is None else _adapter_path(name)
    fresh = path is not None and root.peft != path
    if fresh:
        _attach(root, path)
    if root.peft is not None and root.dispatched:
        _enable(root._module, path is not None)
    if path is not None and path not in about.adapters:
        about.adapters[path] = fingerprint(adapter_tensors(root._module))
    if fresh and about.reference is not None:
        from tracekit.check import verify_adapter

        verify_adapter(root)


def origin(model: TransformersModel) -> Origin:
    """What `load` recorded about a model.

    Errors: `TypeError` for a model that `load` did not make.
    """
    found = getattr(getattr(model, "_module", None), "tracekit_origin", None)
    if found is None:
        raise TypeError(
            f"A model made by tracekit.load is needed; this is a {type(model).__name__}. "
            "Use tracekit.load(name, folder or module)."
        )
    return found


def model_provenance(model: TransformersModel) -> dict[str, Any]:
    """The provenance fields that a model contributes to what is computed with it."""
    about, active = origin(model), current_adapter(model)
    shown = None
    if active is not None:
        shown = {"name": adapter_name(active), "weights": about.adapters[active]}
    return {
        "model": about.name,
        "revision": about.revision,
        "weights": about.weights,
        "dtype": about.dtype,
        "adapter": shown,
        "edits": edits_of(model),
        "versions": versions(),
    }


def edits_of(model: TransformersModel) -> list[Any]:
    """What each edit on this model is; an edit made with plain nnsight counts as `custom`."""
    known = list(model.__dict__.get("tracekit_edits", []))
    foreign = len(model._edits) - len(known)
    return known + [{"kind": "custom"}] * max(foreign, 0)


def adapter_name(path: str) -> str:
    """A shipped organism's or a hub id's name; only the last part of a local folder."""
    return Path(path).name if Path(path).is_dir() else path


def device_of(model: TransformersModel) -> torch.device:
    """Where the embedding lies, which is where inputs go."""
    return next(model._module.parameters()).device


def _source(model: Any) -> tuple[Any, str]:
    if isinstance(model, torch.nn.Module):
        return model, type(model).__name__
    text = os.fspath(model)
    if text == EMBEDDED:
        return str(embedded_model()), EMBEDDED
    if Path(text).is_dir():
        if not (Path(text) / "config.json").is_file():
            raise FileNotFoundError(
                f"The folder {text!r} holds no config.json, so it is not a model. "
                "Give the folder that transformers' save_pretrained wrote."
            )
        return text, Path(text).name
    if "/" in text and not text.startswith((".", "/")) and text.count("/") == 1:
        return text, text
    near = difflib.get_close_matches(text, [EMBEDDED], cutoff=0.4)
    raise ValueError(
        f"The model {text!r} is neither a folder nor a hub id (owner/name). "
        f"{'Did you mean ' + repr(near[0]) + '?' if near else f'The embedded one is {EMBEDDED!r}.'}"
    )


def _precision(dtype: str | torch.dtype, source: Any) -> dict[str, Any]:
    if isinstance(source, torch.nn.Module):
        return {}
    gpu = torch.cuda.is_available()
    name = str(dtype).removeprefix("torch.")
    if name in QUANTISED:
        # bf16 is four times slower than float32 on a CPU
        return {
            "dtype": name,
            "device_map": "auto" if gpu else "cpu",
            **({} if gpu or name == "int8" else {"compute_dtype": torch.float32}),
        }
    if name == "auto":
        name = "bfloat16" if gpu else "float32"
    if name not in FLOATS:
        raise ValueError(
            f"dtype={name!r} was asked for; there are auto, {', '.join(FLOATS + QUANTISED)}."
        )
    return {"dtype": getattr(torch, name), **({"device_map": "auto"} if gpu else {})}


def _build(
    source: Any, name: str, rename: dict[str, str], settings: dict[str, Any], **where: Any
) -> TransformersModel:
    remote, revision = where["remote"], where["revision"]
    given = {} if revision is None else {"revision": revision}
    try:
        return TransformersModel(
            source,
            task="text-generation",
            rename=rename,
            dispatch=not remote,
            **given,
            **settings,
        )
    except OSError as error:
        if Path(str(source)).is_dir():
            raise
        raise FileNotFoundError(
            f"The model {name!r} could not be loaded from the hub: {str(error).splitlines()[0]} "
            "To use a local copy, pass its folder, or set HF_HOME to a cache that has it "
            "(and HF_HUB_OFFLINE=1); a gated model needs HF_TOKEN."
        ) from error


def _require_names(model: TransformersModel, name: str) -> None:
    missing = [n for n in ("layers", "embed", "norm", "lm_head") if not hasattr(model, n)]
    if not missing:
        missing = [f"layers[0].{n}" for n in ("attn", "mlp") if not hasattr(model.layers[0], n)]
    if missing:
        lists = [
            f"{path} ({len(child)})"
            for path, child in model._module.named_modules()
            if isinstance(child, torch.nn.ModuleList)
        ]
        raise ValueError(
            f"{name}: {type(model._module).__name__} has no module known as {', '.join(missing)}. "
            f"Its module lists are {', '.join(lists[:5]) or 'none'}. "
            'Pass the mapping, for example load(…, rename={"backbone.blocks": "layers"}).'
        )


def _keep_nf4_as_stored(module: torch.nn.Module) -> None:
    # On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights at the first forward, and
    # the next state_dict() (attaching an adapter calls it) does not restore them: the base changes.
    for layer in module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _freeze(model: TransformersModel) -> None:
    model._module.eval()
    for parameter in model._module.parameters():
        parameter.requires_grad_(False)


def _origin(
    model: TransformersModel, name: str, dtype: Any, revision: str | None, remote: bool
) -> Origin:
    module = model._module
    held = str(dtype).removeprefix("torch.")
    if held not in QUANTISED:
        held = str(module.dtype).removeprefix("torch.")
    found = getattr(module.config, "_commit_hash", None) or revision
    weights = "remote" if remote else fingerprint(dict(module.named_parameters()))
    return Origin(model, name, found, held, weights)


def _adapter_path(name: str) -> str:
    shipped = datasets("organisms")
    folder = Path(name) if Path(name).is_dir() else shipped / name
    if (folder / "adapter_config.json").is_file():
        return str(folder)
    if "/" in name and not folder.is_dir() and name.count("/") == 1:
        return name
    exist = sorted(path.parent.name for path in shipped.glob("*/adapter_config.json"))
    raise ValueError(
        f"The adapter {name!r} is neither a folder with an adapter_config.json nor a hub id. "
        f"Shipped organisms: {', '.join(exist) or 'none'}."
    )


def _attach(root: TransformersModel, path: str) -> None:
    _refuse_other_base(root, path)
    before = root.peft
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            root.load_adapter(path)
    except (RuntimeError, ValueError, OSError) as error:
        from nnsight.modeling.peft import detach

        # peft may have stopped half way: nothing of a refused adapter stays behind
        detach(root._module)
        root.peft = None
        root._update(root._module)
        if before is not None:
            root.load_adapter(before)
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The adapter {adapter_name(path)!r} does not fit {origin(root).name}: "
            f"{reason[:400]} Use an adapter trained for this model."
        ) from error
    _keep_stored_precision(root._module, path)
    _freeze(root)


def _refuse_other_base(root: TransformersModel, path: str) -> None:
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The adapter {path!r} could not be read: {str(error).splitlines()[0]} "
            "Pass a local folder, or set HF_HOME to a cache that has it."
        ) from error
    if config.is_prompt_learning or config.peft_type.value == "ADAPTION_PROMPT":
        raise ValueError(
            f"The adapter {adapter_name(path)!r} is a {config.peft_type.value} adapter, which "
            "changes the prompt and not the layers, so it cannot be switched on loaded weights. "
            "Use a LoRA-like adapter."
        )
    plan = getattr(root._module, "_tp_size", None) or getattr(root._module, "tp_size", None)
    if plan and plan > 1:
        raise ValueError(
            f"The adapter {adapter_name(path)!r} was asked for on a tensor-parallel model "
            f"({plan} ranks): peft does not shard its weights. Use device_map='auto' instead."
        )


def _keep_stored_precision(module: torch.nn.Module, path: str) -> None:
    # peft casts a 16-bit adapter up to float32; a 6.6 GB one would take 13.3 GB. On a 16-bit or
    # quantised model it is held as stored.
    if module.dtype == torch.float32 or not Path(path).is_dir():
        return
    for tensor in adapter_tensors(module).values():
        tensor.data = tensor.data.to(module.dtype)


def adapter_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that an adapter added, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    held = {id(p) for p in module.parameters()}
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            held -= {id(p) for p in layer.get_base_layer().parameters()}
    layered = {
        f"{name}.{inner}": p
        for name, layer in module.named_modules()
        if isinstance(layer, BaseTunerLayer)
        for inner, p in layer.named_parameters()
        if id(p) in held
    }
    return layered


def tuner_layers(module: torch.nn.Module) -> list[Any]:
    """The modules that hold an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def _enabled(module: torch.nn.Module) -> bool:
    return any(not layer.disable_adapters for layer in tuner_layers(module))


@contextlib.contextmanager
def enabled(model: TransformersModel, on: bool) -> Iterator[None]:
    """The attached adapter switched on or off inside, and as it was afterwards."""
    before = _enabled(model._module)
    _enable(model._module, on)
    try:
        yield
    finally:
        _enable(model._module, before)


def _enable(module: torch.nn.Module, on: bool) -> None:
    for layer in tuner_layers(module):
        layer.enable_adapters(on)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
