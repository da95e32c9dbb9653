"""Settings of runs from before they had groups, when a control's folder said its role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.audit.settings.adapters import CONTROL, HABITS, ORGANISM
from experiments.audit.settings.tables import grouped

RETIRED = ("ladder", "other_objectives")  # no number depended on them
ROLES = {"style": "style", "open_sycophant": "further", "undenied": "further"}


def is_flat(settings: Mapping[str, Any]) -> bool:
    """Whether settings are an audit's in one table without groups (a study's have no model).

    >>> is_flat({"model": "m"}), is_flat({"model": {"name": "m"}}), is_flat({"seed": 1})
    (True, False, False)
    """
    return isinstance(settings.get("model"), str)


def in_groups(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """What such a run was made of, as it is written now: its settings, and a hash of each file.

    >>> in_groups({"settings": {"model": "m", "controls": ["style"]}})["settings"]["adapters"]
    {'style': '', 'further': [], 'controls': ['style=style']}
    """
    flat = {key: value for key, value in made_of["settings"].items() if key not in RETIRED}
    if isinstance(named := flat.get("controls"), list):
        flat["controls"] = [f"{ROLES[n]}={n}" if n in ROLES else n for n in named]
    contents = dict(made_of.get("contents", {}))
    further = contents.pop("controls", {})
    single = {name: contents.pop(name, "") for name in (ORGANISM, CONTROL, HABITS)}
    hashes = {**further, **{name: value for name, value in single.items() if value}}
    return {**made_of, "settings": grouped(flat), "contents": {**contents, "arms": hashes}}


def in_one_table(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one table, the names of groups before those of values.

    >>> in_one_table({"model": {"name": "a"}})
    {'model.name': 'a'}
    """
    table: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, dict)
        table |= in_one_table(value, f"{before}{key}.") if inner else {before + key: value}
    return table
