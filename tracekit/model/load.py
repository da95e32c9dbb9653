"""Loading models: one call for every variant, proved before the first value of it leaves."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nnsight
import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model import distributed, names
from tracekit.model.adapters.layers import adapter_name, current_adapter, freeze, refuse_adapted
from tracekit.model.adapters.switch import switch
from tracekit.model.checks.check import verify
from tracekit.model.embedded import EMBEDDED, embedded_model, is_hub_id
from tracekit.model.guarded_model import GuardedModel, unedited
from tracekit.model.record import (
    FLOATS,
    QUANTISED,
    Origin,
    described_quantisation,
    edits_of,
    fingerprinted,
    held_dtype,
    origin,
    parallel_degree,
)
from tracekit.model.weights import Watch, weights_fingerprint
from tracekit.storage.identity import versions

__all__ = ["Origin", "device_of", "edits_of", "load", "model_provenance", "origin"]


def load(
    model: str | os.PathLike[str] | torch.nn.Module,
    *,
    adapter: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    remote: bool | str = False,
    check: bool = True,
    data_parallel: bool = False,
    **kwargs: Any,
) -> TransformersModel:
    """An nnsight `TransformersModel` with the standard names, and an adapter attached if given.

    `model` is a hub id, a local folder, `"smollm2-135m-instruct"` (embedded) or a transformers
    module (then pass `tokenizer=`). `dtype` is a torch dtype, its name, or `nf4`, `int8` (through
    bitsandbytes); `auto` is float32 on CPU, bfloat16 on GPU. Standard names: `model.layers[i]`,
    `.attn`, `.mlp`, `model.embed`, `.norm`, `.lm_head`; an unknown architecture is named by its
    structure, or by `rename=`. `check=True` proves that the names mean what they say before the
    first value leaves: at the first trace, edit of weights or question about them, or at once by
    `tracekit.check`. `remote=True` runs every trace on NDIF, unchecked; `remote="local"` tries
    that path out here. `data_parallel=True`, in processes that torchrun started, loads a copy in
    each (on a GPU of its own); `generate` and `capture` then share the batches. Other keywords go
    to transformers (`device_map`, `tp_plan`, `attn_implementation`, …).

    Errors: `ValueError` for an unknown name, dtype or architecture, for an adapter that does
    not fit and for settings that exclude each other; `FileNotFoundError` for a folder or hub id
    that cannot be reached.

    >>> model = load("smollm2-135m-instruct")
    >>> len(model.layers)
    30
    """
    if remote:
        nnsight.register("tracekit")  # its code travels with the trace: the server has none of it
    source, name = _source(model)
    part = distributed.join() if data_parallel else (0, 1)
    if data_parallel and torch.cuda.is_available():
        kwargs = {"device_map": {"": int(os.environ["LOCAL_RANK"])}, **kwargs}
    _refuse_parallel(kwargs, dtype)
    rename = {**names.STANDARD_NAMES, **kwargs.pop("rename", {})}
    settings = {**_precision(dtype, source, _is_parallel(kwargs)), **_disk_last(kwargs, name)}
    if isinstance(source, torch.nn.Module):
        refuse_adapted(source, name)
    loaded = _named(source, name, rename, settings, revision, remote)
    refuse_adapted(loaded._module, name)
    if remote is not True:
        _refuse_embedding_on_disk(loaded._module, name)
        freeze(loaded._module)
        _keep_nf4_as_stored(loaded._module)
    loaded._module.tracekit_origin = _origin(loaded, name, revision, remote, check)
    loaded.interleaver.about = origin(loaded)
    origin(loaded).share = part
    if parallel_degree(loaded._module) > 1:
        origin(loaded).settle()  # now, while every rank is here
    if adapter is not None:
        switch(loaded, adapter)
    return loaded


def model_provenance(model: TransformersModel) -> dict[str, Any]:
    """The provenance fields that a model contributes to what is computed with it."""
    about, active = origin(model), current_adapter(model)
    shown: dict[str, Any] | None = None
    if active is not None:
        shown = {"name": adapter_name(active), "weights": about.adapters[active]}
        shown |= {} if about.scale == 1 else {"scale": about.scale}
    return {
        "model": about.name,
        "revision": about.revision,
        "weights": fingerprinted(about) if active is None else about.weights,
        "depth": len(model.layers),
        "dtype": about.dtype,
        "quantisation": about.quantisation,
        "adapter": shown,
        "edits": edits_of(model),
        "versions": versions(),
    }


def device_of(model: TransformersModel) -> torch.device:
    """Where the embedding lies, which is where inputs go."""
    return next(model._module.parameters()).device


def _source(model: Any) -> tuple[Any, str]:
    if isinstance(model, torch.nn.Module):
        return model, Path(getattr(model, "name_or_path", "")).name or type(model).__name__
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
    if is_hub_id(text):
        return text, text
    near = difflib.get_close_matches(text, [EMBEDDED], cutoff=0.4)
    raise InputError(
        f"The model {text!r} is neither a folder nor a hub id (owner/name). "
        f"{'Did you mean ' + repr(near[0]) + '?' if near else f'The embedded one is {EMBEDDED!r}.'}"
    )


def _is_parallel(kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("tp_plan") is not None or kwargs.get("distributed_config") is not None


def _refuse_parallel(kwargs: Mapping[str, Any], dtype: Any) -> None:
    name = str(dtype).removeprefix("torch.")
    if _is_parallel(kwargs) and name in QUANTISED:
        raise InputError(
            f"dtype={name!r} was asked for with tensor parallelism: bitsandbytes weights are "
            "packed and cannot be split by rows or columns. "
            "Use device_map='auto', or dtype='bfloat16'."
        )


def _disk_last(kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    # transformers takes the first place of a device_map for the model's device
    places = kwargs.get("device_map")
    if not isinstance(places, Mapping):
        return dict(kwargs)
    ordered = dict(sorted(places.items(), key=lambda entry: entry[1] == "disk"))
    if set(ordered.values()) == {"disk"}:
        raise _embedding_on_disk(name)
    return {**kwargs, "device_map": ordered}


def _refuse_embedding_on_disk(module: torch.nn.Module, name: str) -> None:
    embedding: Any = module
    if getattr(embedding.get_input_embeddings(), "weight", torch.empty(0)).is_meta:
        raise _embedding_on_disk(name)


def _embedding_on_disk(name: str) -> InputError:
    return InputError(
        f"{name}: device_map puts the embedding on disk, and the inputs go where it lies. Give it "
        'a place in memory, such as {"model.embed_tokens": "cpu", …}; blocks may lie on disk.'
    )


def _precision(dtype: str | torch.dtype, source: Any, parallel: bool) -> dict[str, Any]:
    name = str(dtype).removeprefix("torch.")
    if name not in ("auto", *FLOATS, *QUANTISED):
        raise InputError(
            f"dtype={name!r} was asked for; there are auto, {', '.join(FLOATS + QUANTISED)}."
        )
    if isinstance(source, torch.nn.Module):
        held = held_dtype(source)
        if name not in ("auto", held):
            raise InputError(
                f"dtype={name!r} was asked for, but the module given holds {held}. "
                "Leave dtype out, or convert the module first."
            )
        return {}
    gpu = torch.cuda.is_available()
    place = {"device_map": "auto"} if gpu and not distributed else {}
    if name in QUANTISED:
        # bf16 is four times slower than float32 on a CPU
        slow = not gpu and name != "int8"
        computed = {"compute_dtype": torch.float32} if slow else {}
        return {"dtype": name, "device_map": "auto" if gpu else "cpu", **computed}
    chosen = ("bfloat16" if gpu else "float32") if name == "auto" else name
    return {"dtype": getattr(torch, chosen), **place}


def _named(
    source: Any, name: str, rename: dict[str, str], settings: dict[str, Any], *where: Any
) -> TransformersModel:
    """The model with its standard names, found by structure where it is not known."""
    loaded = _build(source, name, rename, settings, *where)
    lacks = names.missing(loaded)
    structure = names.by_structure(loaded._module, rename) if lacks else {}
    if not set(lacks).isdisjoint(structure.values()):
        again = source if where[1] is True else loaded._module
        same = settings if where[1] is True else {}
        settings = {**same, "tokenizer": loaded.tokenizer}
        loaded = _build(again, name, {**structure, **rename}, settings, *where)
    names.require(loaded, name, rename)
    return loaded


def _build(
    source: Any,
    name: str,
    rename: dict[str, str],
    settings: dict[str, Any],
    revision: str | None,
    remote: bool | str,
) -> TransformersModel:
    given = {} if revision is None else {"revision": revision}
    try:
        return GuardedModel(
            source,
            task="text-generation",
            rename=rename,
            dispatch=remote is not True,
            **given,
            **settings,
        )
    except OSError as error:
        if isinstance(source, torch.nn.Module):
            raise InputError(
                f"The module {name} was given without its tokenizer, and none was found under "
                f"{getattr(source, 'name_or_path', '')!r}. Pass tokenizer=."
            ) from error
        if Path(str(source)).is_dir():
            raise
        raise FileNotFoundError(
            f"The model {name!r} is no folder here, and the hub did not give it: "
            f"{str(error).splitlines()[0]} To use a local copy, pass its folder, or set HF_HOME "
            "to a cache that has it (and HF_HUB_OFFLINE=1); a gated model needs HF_TOKEN."
        ) from error


def _origin(
    model: TransformersModel, name: str, revision: str | None, remote: bool | str, check: bool
) -> Origin:
    module = model._module
    about = Origin(
        root=model,
        name=name,
        revision=getattr(module.config, "_commit_hash", None) or revision,
        dtype=held_dtype(module),
        quantisation=described_quantisation(module),
        remote=remote,
    )
    if remote is True:
        about.weights = "remote"
    else:
        about.pending = lambda: _settle(about, check)
    return about


def _settle(about: Origin, check: bool) -> bool:
    """The weights' fingerprint, and the proofs; whether there were any."""
    with unedited(about.root):
        about.weights = weights_fingerprint(about.root._module)
        if check:
            about.reference = verify(about.root)
    if about.quantisation is None:
        about.watch = Watch(about.root._module)
    return check


def _keep_nf4_as_stored(module: torch.nn.Module) -> None:
    # On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights at the first forward, and
    # the next state_dict() (attaching an adapter calls it) does not restore them: the base changes.
    layer: Any
    for layer in module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
