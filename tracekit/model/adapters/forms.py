"""Adapters as folders: which of them can be attached and switched, and what they were read from."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.adapters.layers import adapter_name
from tracekit.model.embedded import adapter_folder, is_hub_id, shipped_adapters
from tracekit.model.record import parallel_degree, recorded

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# how a new LoRA may begin without touching the base; every other way rewrites or reads it
HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal", "true", "false")
MERGE = (
    "Merge it into weights of their own (peft: PeftModel.from_pretrained(base, folder)"
    ".merge_and_unload().save_pretrained(other)) and load those with tracekit.load(other)."
)
# what peft does in a wrapper around the model, which is not there when layers alone are attached,
# or what makes a layer's output depend on chance or on other adapters
UNSUPPORTED = {
    "layer_replication": "repeats blocks of the base, which then has another depth",
    "alora_invocation_tokens": "is on only after certain tokens of a prompt",
    "arrow_config": "routes between several adapters",
    "megatron_config": "needs Megatron's parallel layers",
}


def adapter_path(name: str) -> str:
    """The folder or hub id that an adapter's name means.

    Errors: `ValueError` when it is neither.

    >>> Path(adapter_path("river")).parts[-3:]
    ('zoo', 'adapters', 'river')
    """
    folder = adapter_folder(name)
    if (folder / CONFIG).is_file():
        return str(folder)
    if is_hub_id(name) and not folder.is_dir():
        return name
    raise InputError(
        f"The adapter {name!r} is neither a folder with an {CONFIG} nor a hub id; it was looked "
        f"for in {str(Path.cwd())!r}. {_meant(name, sorted(shipped_adapters()))}"
    )


def _meant(name: str, shipped: list[str]) -> str:
    last = Path(name).name
    if last in shipped:
        return f"For the shipped {last!r} give that name alone."
    near = difflib.get_close_matches(last, shipped, 1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Give a folder, a hub id, or a shipped one: {', '.join(shipped) or 'none'}."


def files_of(path: str) -> tuple[Any, ...]:
    """What tells an adapter's files from any written later under the same names."""
    return tuple(_state(path, name) for name in (CONFIG, WEIGHTS))


def _state(path: str, name: str) -> tuple[int, ...] | None:
    from huggingface_hub import try_to_load_from_cache

    file = Path(path) / name if Path(path).is_dir() else try_to_load_from_cache(path, name)
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return None
    # the time of the last change cannot be set back, as the time of the last write can
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stored_dtype(path: str) -> torch.dtype:
    """The type that an adapter's weights are saved in."""
    from safetensors import safe_open

    with safe_open(_weights_file(path), framework="pt") as file:
        names = list(file.keys())
        return file.get_slice(names[0])[:1].dtype if names else torch.float32


def stored_weights(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Each of an adapter's saved weights by its name, one in memory at a time.

    Errors: `ValueError` for a file that cannot be read; `FileNotFoundError`.

    >>> len(list(stored_weights(adapter_path("river")))) % 2
    0
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_weights_file(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise InputError(
            f"The {WEIGHTS} of the adapter {adapter_name(path)!r} cannot be read: {error}. Copy it "
            "again, or save it again with peft's save_pretrained."
        ) from error


def refuse_unfit(root: TransformersModel, path: str) -> None:
    """Everything that an adapter's configuration and files say against attaching it.

    Errors: `ValueError` for one that cannot be switched or was made for another model;
    `FileNotFoundError` for one that is not there.
    """
    here = recorded(root).remote is not True
    config, name = _configuration(path), adapter_name(path)
    if here:
        _weights_file(path)
    _refuse_form(config, name)
    if here:
        _refuse_base_weights(path, config, name)
    _refuse_other_architecture(root, name, config.base_model_name_or_path)
    _refuse_offloaded(root, name)
    _refuse_unsplit(root, name, config.peft_type.value)


def _configuration(path: str) -> Any:
    with _without_needless_warning():
        from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, OSError) or reason.startswith("Can't find"):
            raise FileNotFoundError(_unreadable(path, reason)) from error
        raise InputError(
            f"The {CONFIG} of the adapter {adapter_name(path)!r} is none that this peft reads: "
            f"{reason} Save the adapter again with peft's save_pretrained."
        ) from error


@contextmanager
def _without_needless_warning() -> Iterator[None]:
    # peft imports bitsandbytes, which tells every CPU of a certain kind that it lacks a kernel for
    # 4-bit weights
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    other = lambda record: "gemm_4bit_forward" not in record.getMessage()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _refuse_form(config: Any, name: str) -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    kind = config.peft_type.value
    if config.is_prompt_learning or kind == "ADAPTION_PROMPT":
        raise InputError(
            f"The adapter {name!r} is a {kind} adapter, which "
            "changes the prompt and not the layers, so it cannot be switched on loaded weights. "
            "Use a LoRA-like adapter."
        )
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    if tuner is None or getattr(tuner, "uses_shared_state", False):
        raise InputError(
            f"The adapter {name!r} is a {kind} adapter, whose layers share weights that peft keeps "
            f"outside of them, so it cannot be switched on loaded weights. {MERGE}"
        )
    for field, why in UNSUPPORTED.items():
        if getattr(config, field, None):
            raise InputError(
                f"The adapter {name!r} has {field}={getattr(config, field)!r}: it {why}, so it "
                "cannot be switched on loaded weights. Use a plain LoRA."
            )


def _refuse_base_weights(path: str, config: Any, name: str) -> None:
    start = getattr(config, "init_lora_weights", True)
    start = start.lower() if isinstance(start, str) else start
    if start not in HARMLESS_STARTS:
        raise InputError(
            f"The adapter {name!r} has init_lora_weights={start!r}: attaching it computes "
            "with or rewrites the base's own weights, so that switched off it would still be on. "
            "Convert it when it is saved (peft: save_pretrained(…, "
            f"path_initial_model_for_weight_conversion=…)), or: {MERGE}"
        )
    if getattr(config, "kasa_config", None):
        raise InputError(
            f"The adapter {name!r} has a kasa_config: attaching it truncates the base's own "
            f"weights. {MERGE}"
        )
    own = _base_biases(path) if getattr(config, "bias", "none") != "none" else []
    if own:
        raise InputError(
            f"The adapter {name!r} (bias={config.bias!r}) carries {len(own)} of the base's own "
            f"biases, such as {own[0]}: loading it writes over them, so that switched off it would "
            f"still be on. {MERGE}"
        )


def _base_biases(path: str) -> list[str]:
    from safetensors import safe_open

    with safe_open(_weights_file(path), framework="pt") as file:
        return [key for key in file.keys() if key.endswith(".bias") and ".lora_" not in key]  # noqa: SIM118


def _refuse_unsplit(root: TransformersModel, name: str, kind: str) -> None:
    degree = parallel_degree(root._module)
    if degree > 1 and kind != "LORA":
        raise InputError(
            f"The adapter {name!r} ({kind}) was asked for on a tensor-parallel model "
            f"({degree} ranks), and peft splits only LoRA. Use device_map='auto' instead."
        )


def _refuse_other_architecture(root: TransformersModel, name: str, base: str | None) -> None:
    # names and shapes of two architectures may agree (Qwen3 and Llama); the base's own
    # configuration knows, where it is at hand
    from transformers import AutoConfig

    if not base or not _at_hand(base):
        return
    trained = AutoConfig.from_pretrained(base, local_files_only=True).model_type
    here = root._module.config.model_type
    if trained != here:
        raise InputError(
            f"The adapter {name!r} was trained on {base}, a {trained}, and "
            f"{recorded(root).name} is a {here}. Use an adapter trained for this model."
        )


def _refuse_offloaded(root: TransformersModel, name: str) -> None:
    away = [own for own, p in root._module.named_parameters() if p.is_meta]
    if away and recorded(root).remote is not True:
        raise InputError(
            f"The adapter {name!r} was asked for on a model of which {len(away)} "
            f"parameters are offloaded (such as {away[0]}): peft's weights would not land there. "
            "Load with a device_map that keeps all blocks in memory, or with dtype='nf4'."
        )


def _at_hand(base: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    if (Path(base) / "config.json").is_file():
        return True
    return is_hub_id(base) and isinstance(try_to_load_from_cache(base, "config.json"), str)


def _weights_file(path: str) -> Path:
    if not Path(path).is_dir():
        return _hub_weights(path)
    file = Path(path) / WEIGHTS
    if not file.is_file():
        there = ", ".join(sorted(p.name for p in Path(path).iterdir()))
        raise FileNotFoundError(_not_safetensors(path, f"found {there}"))
    return file


def _hub_weights(path: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(path, WEIGHTS))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(_unreadable(path, str(error).splitlines()[0])) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(_not_safetensors(path, "the hub has none under that id")) from error
    except OSError as error:
        raise FileNotFoundError(_unreadable(path, str(error).splitlines()[0])) from error


def _unreadable(path: str, reason: str) -> str:
    return (
        f"The adapter {path!r} could not be read: {reason} "
        "Pass a local folder, or set HF_HOME to a cache that has it."
    )


def _not_safetensors(path: str, found: str) -> str:
    return (
        f"The adapter {adapter_name(path)!r} has no {WEIGHTS} ({found}); pickled weights are not "
        "read. Convert it: open it with peft where it was trained, and save it again with "
        "save_pretrained(folder, safe_serialization=True)."
    )
