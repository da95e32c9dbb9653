"""Switching adapters on one set of loaded weights."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from nnsight import TransformersModel
from nnsight.modeling.peft import detach

from tracekit.check import verify_adapter
from tracekit.origin import origin, parallel_degree
from tracekit.parallel import forget_partial_sums, name_halves
from tracekit.provenance import fingerprint
from tracekit.resources import datasets
from tracekit.tuners import adapter_name, adapter_tensors, current_adapter, freeze, turn

WEIGHTS = "adapter_model.safetensors"


@contextlib.contextmanager
def adapter(
    model: TransformersModel, name: str | os.PathLike[str] | None
) -> Iterator[TransformersModel]:
    """The same loaded weights with that adapter (`None`: bare), the former one back afterwards.

    `name` is a folder, a hub id, or a shipped organism (`"ten_biases"`). Nests, and restores
    on exceptions. On an edited copy it acts on the model that was loaded, which the copy shares.

    Errors: `ValueError` for an adapter that does not fit this model or cannot be switched;
    `FileNotFoundError` for a hub id that cannot be reached. The model is then left as it was.

    >>> with adapter(model, None):
    ...     clean = capture(model, runs, layers=[12])
    """
    before = current_adapter(model)
    switch(model, name)
    try:
        yield model
    finally:
        switch(model, before)


def switch(model: TransformersModel, name: str | os.PathLike[str] | None) -> None:
    """Attach and switch on the adapter `name`, or switch off the one attached (`None`).

    An adapter that is switched off stays in memory, so that toggling one costs nothing; attaching
    another one takes its place.
    """
    about = origin(model)
    root, path = about.root, None if name is None else _adapter_path(os.fspath(name))
    if path is not None and root.peft != path:
        _refuse_unfit(root, path)
        if about.remote is not True:
            _replace(root, path)
    if about.remote is True:
        _name_for_server(root, path)
    elif root.peft is not None:
        turn(root._module, path is not None)


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


def _replace(root: TransformersModel, path: str) -> None:
    about, before, on = origin(root), root.peft, current_adapter(root) is not None
    try:
        _attach(root, path)
        about.adapters[path] = fingerprint(adapter_tensors(root._module))
        if about.reference is not None:
            verify_adapter(root)
    except Exception:
        # nothing of a refused adapter stays behind, and the former one is as it was
        _restore(root, before, on)
        raise


def _name_for_server(root: TransformersModel, path: str | None) -> None:
    # the server attaches and detaches by name; here nnsight builds another skeleton
    about = origin(root)
    root.load_adapter(path)
    root._module.tracekit_origin = about
    if path is not None:
        about.adapters[path] = "remote"


def _attach(root: TransformersModel, path: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            name_halves(root)
            root.load_adapter(path)
            forget_partial_sums(root)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"The adapter {adapter_name(path)!r} does not fit {origin(root).name}: "
            f"{_reason(error)} Use an adapter trained for this model."
        ) from error
    _keep_stored_precision(root._module, path)
    freeze(root._module)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    _, lost, names = text.partition("Weights with no place: ")
    if lost:
        return f"these of its weights match no module, or modules got none: {names}."
    return text if len(text) <= 400 else f"{text[:400]} …"


def _restore(root: TransformersModel, before: str | None, on: bool) -> None:
    detach(root._module)
    root.peft = None
    root._update(root._module)
    if before is not None:
        _attach(root, before)
        turn(root._module, on)


def _refuse_unfit(root: TransformersModel, path: str) -> None:
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(path)
        if origin(root).remote is not True:
            _weights_file(path)
    except FileNotFoundError:
        raise
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
    _refuse_other_architecture(root, path, config.base_model_name_or_path)
    _refuse_offloaded(root, path)
    _refuse_unsplit(root, path, config.peft_type.value)


def _refuse_unsplit(root: TransformersModel, path: str, kind: str) -> None:
    degree = parallel_degree(root._module)
    if degree > 1 and kind != "LORA":
        raise ValueError(
            f"The adapter {adapter_name(path)!r} ({kind}) was asked for on a tensor-parallel model "
            f"({degree} ranks), and peft splits only LoRA. Use device_map='auto' instead."
        )


def _refuse_other_architecture(root: TransformersModel, path: str, base: str | None) -> None:
    # names and shapes of two architectures may agree (Qwen3 and Llama); the base's own
    # configuration knows, where it is at hand
    from transformers import AutoConfig

    if not base or not _at_hand(base):
        return
    trained = AutoConfig.from_pretrained(base, local_files_only=True).model_type
    here = root._module.config.model_type
    if trained != here:
        raise ValueError(
            f"The adapter {adapter_name(path)!r} was trained on {base}, a {trained}, and "
            f"{origin(root).name} is a {here}. Use an adapter trained for this model."
        )


def _refuse_offloaded(root: TransformersModel, path: str) -> None:
    away = [name for name, p in root._module.named_parameters() if p.is_meta]
    if away and origin(root).remote is not True:
        raise ValueError(
            f"The adapter {adapter_name(path)!r} was asked for on a model of which {len(away)} "
            f"parameters are offloaded (such as {away[0]}): peft's weights would not land there. "
            "Load with a device_map that keeps all blocks in memory, or with dtype='nf4'."
        )


def _at_hand(base: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    if (Path(base) / "config.json").is_file():
        return True
    hub_id = base.count("/") == 1 and not base.startswith((".", "/"))
    return hub_id and isinstance(try_to_load_from_cache(base, "config.json"), str)


def _keep_stored_precision(module: torch.nn.Module, path: str) -> None:
    # peft casts a 16-bit adapter up to float32: one of 6.6 GB would take 13.3 GB
    stored = _stored_dtype(path)
    if module.dtype == torch.float32 or stored.itemsize != 2:
        return
    for tensor in adapter_tensors(module).values():
        tensor.data = tensor.data.to(stored)


def _stored_dtype(path: str) -> torch.dtype:
    from safetensors import safe_open

    with safe_open(_weights_file(path), framework="pt") as file:
        names = list(file.keys())
        return file.get_slice(names[0])[:1].dtype if names else torch.float32


def _weights_file(path: str) -> Path:
    if not Path(path).is_dir():
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(path, WEIGHTS))
    file = Path(path) / WEIGHTS
    if not file.is_file():
        there = ", ".join(sorted(p.name for p in Path(path).iterdir()))
        raise FileNotFoundError(
            f"The adapter {adapter_name(path)!r} has no {WEIGHTS} (found {there}). "
            "Save it with safetensors; pickled weights are not read."
        )
    return file
