"""Presets that an experiment ships: TOML files of settings, and what they share."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import from_values, grouped, merged
from tracekit.errors import InputError

SHARED = "shared"  # the file whose values every preset beside it has, unless it says otherwise
BESIDE = (("prompts", "file"), ("answers", "labels"), ("vectors", "traits"))
# what is said of a preset's own prompts, and of no others
OF_PROMPTS: Mapping[str, Any] = {"split": "", "held_out": [], "labels": ""}


def read_preset(
    folder: Traversable, name: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The settings of a preset, with `changes` to single ones, by their options' names.

    A name that ends in .toml is a file of one's own. Prompts, labels and traits that the preset
    names may lie beside it; with other prompts, its split, held-out kinds and labels are gone.

    Errors: `ValueError` for an unknown preset or setting and for a value of another kind, or a
    file that is no TOML; `FileNotFoundError`.

    >>> read_preset(presets, "tiny", {"limit": 5}).prompts.limit
    5
    """
    values = _own(folder, Path(name)) if name.endswith(".toml") else _shipped(folder, name)
    changes = {**(OF_PROMPTS if "prompts" in (changes or {}) else {}), **(changes or {})}
    return from_values(merged({"preset": Path(name).stem, **values}, grouped(changes)))


def shipped(folder: Traversable) -> list[str]:
    """The names of the presets in an experiment's folder.

    >>> shipped(presets)[-1]
    'tiny'
    """
    names = sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return [name for name in names if name != SHARED]


def table_of(path: Path) -> dict[str, Any]:
    """What a preset of one's own says itself, without what it shares.

    >>> _ = Path("mine.toml").write_text("[null]\\nseed = 7")
    >>> table_of(Path("mine.toml"))
    {'null': {'seed': 7}}
    """
    if not path.is_file():
        raise FileNotFoundError(f"The preset {str(path)!r} was asked for; there is no such file.")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} was read as TOML, and is not: {error}.") from error


def _own(folder: Traversable, path: Path) -> dict[str, Any]:
    """The values of a file, over those that the folder's presets share."""
    table = table_of(path)
    return merged(_placed(folder, _table(folder, SHARED)), _placed(path.parent, table))


def _shipped(folder: Traversable, name: str) -> dict[str, Any]:
    known = shipped(folder)
    if name not in known:
        raise InputError(
            f"The preset {name!r} was asked for; there are {', '.join(known)}. Give one of these."
        )
    return _placed(folder, merged(_table(folder, SHARED), _table(folder, name)))


def _table(folder: Traversable, name: str) -> dict[str, Any]:
    path = folder / f"{name}.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def _placed(folder: Traversable, values: dict[str, Any]) -> dict[str, Any]:
    """The same table, with the place of each file that lies beside the preset."""

    def place(name: Any) -> Any:
        beside = folder / name if isinstance(name, str) and name else None
        return str(beside) if beside and (beside.is_file() or beside.is_dir()) else name

    for group, key in BESIDE:
        table = values.get(group)
        if isinstance(table, dict) and key in table:
            given = table[key]
            here = [place(one) for one in given] if isinstance(given, list) else place(given)
            values = merged(values, {group: {key: here}})
    return values
