"""Presets that an experiment ships: TOML files of settings, and what they share."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import from_values, grouped, merged

SHARED = "shared"  # the file whose values every preset beside it has, unless it says otherwise


def read_preset(name: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a shipped preset, with `changes` to single ones, by their options' names.

    Errors: `ValueError` for an unknown preset or setting and for a value of another kind.

    >>> read_preset("tiny", {"limit": 5}).prompts.limit
    5
    """
    folder = files("experiments.rm_sycophancy") / "presets"
    known = sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))
    known = [entry for entry in known if entry != SHARED]
    if name not in known:
        raise ValueError(
            f"The preset {name!r} was asked for; there are {', '.join(known)}. Give one of these."
        )
    values = merged(_table(folder, SHARED), _table(folder, name))
    return from_values(merged({"preset": name, **values}, grouped(changes or {})))


def _table(folder: Traversable, name: str) -> dict[str, Any]:
    path = folder / f"{name}.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
