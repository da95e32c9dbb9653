"""What settings stand for: their values without this machine's paths, and a hash of each file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from experiments.audit.settings.adapters import by_arm, last_name
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import merged
from tracekit.model.embedded import adapter_folder
from tracekit.storage.identity import digest

ELSEWHERE = ("given", "server", "served_model", "served_adapter")


def described(settings: Settings) -> dict[str, Any]:
    """The settings without any path of this machine, and a hash of each file they name.

    Two runs are the same when these are equal, and only then share a folder.
    """
    model, adapters, prompts = settings.model, settings.adapters, settings.prompts
    given = by_arm(settings.answers.given)
    single = ("organism", "matched", "style", "habits", "benign")
    portable = {
        "model": {"name": _portable(model.name), "base": _portable(model.base)},
        "adapters": {
            **{name: _portable(getattr(adapters, name)) for name in single},
            **{
                name: [*map(last_name, getattr(adapters, name))] for name in ("further", "controls")
            },
        },
        "vectors": {"traits": settings.vectors.names},
        "prompts": {"file": Path(prompts.file).name},
        "answers": {
            "labels": Path(settings.answers.labels).name,
            "given": [f"{arm}={Path(path).name}" for arm, path in given.items()],
        },
    }
    contrasts = settings.vectors.contrasts
    contents = {
        "prompts": _hash(prompts.paths),
        "labels": _hash(_labels(settings.answers.labels)),
        "traits": {name: digest([c.positive, c.negative]) for name, c in contrasts.items()},
        "model": _weights(model.name),
        "base": _weights(model.base),
        "arms": {arm.name: _adapter(arm.adapter) for arm in adapters.arms if arm.adapter},
        "benign": _hash(_benign(adapters.benign)),
    }
    if settings.vectors.full or settings.vectors.chat_pairs:
        pairs = {name: chats.pairs for name, chats in settings.vectors.chats.items()}
        contents["chats"] = {
            name: digest([dataclasses.astuple(pair) for pair in of]) for name, of in pairs.items()
        }
    if settings.vectors.full:
        told = [one for sets in settings.vectors.constructions.values() for one in sets]
        contents["constructions"] = {c.name: digest([c.positive, c.negative]) for c in told}
    if given:
        contents["answers"] = {arm: _hash([Path(path)]) for arm, path in given.items()}
    values = merged(dataclasses.asdict(settings), portable)
    # runs from before there were any are the same runs
    values["answers"] = {k: v for k, v in values["answers"].items() if v or k not in ELSEWHERE}
    return {"settings": values, "contents": contents}


def _benign(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*/adapter_*.*")) if folder else []


def _portable(name: str) -> str:
    return Path(name).name if name and Path(name).is_dir() else name


def _labels(given: str) -> list[Path]:
    """The file of labels or of rules, or the one in which module:function is written."""
    module, colon, _ = given.partition(":")
    if not given or not colon or Path(given).is_file():
        return [Path(given)] if given else []
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []  # labeller_from says what is missing
    return [Path(found.origin)] if found and found.origin else []


def _weights(name: str) -> str:
    return _hash(sorted(Path(name).glob("*.safetensors"))) if name and Path(name).is_dir() else ""


def _adapter(name: str) -> str:
    return _hash(sorted(adapter_folder(name).glob("adapter_*.*")))


def _hash(paths: list[Path]) -> str:
    hashed = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            continue  # read_prompts says what is missing
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:16] if paths else ""
