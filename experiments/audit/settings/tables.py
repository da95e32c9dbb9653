"""Settings from tables: the groups of a preset, single changes to them, each value checked."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.audit.settings.adapters import ROLES
from experiments.audit.settings.groups import Settings, groups, places
from experiments.audit.settings.validity import check, shown
from tracekit.errors import InputError
from traits.contrast_sets.judge import without_credentials

ADDRESSES = ("vet", "judge_at", "server")
Table = Mapping[str, Any]


def grouped(options: Table) -> dict[str, Any]:
    """Single values by group; an unknown name stays where it is.

    Controls given so are all but the matched one and the one with habits.

    >>> grouped({"limit": 5, "model": "m"})
    {'prompts': {'limit': 5}, 'model': {'name': 'm'}}
    """
    there = places()
    tables: dict[str, Any] = {}
    for option, value in options.items():
        if option in there:
            group, name = there[option]
            others = {"style": "", "further": []} if option == "controls" else {}
            tables[group] = {**tables.get(group, {}), **others, name: value}
        else:
            tables[option] = value
    return tables


def merged(table: Table, changes: Table) -> dict[str, Any]:
    """A table of tables with the values of another in it.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    both = {
        name: merged(table[name], value)
        if isinstance(value, Mapping) and isinstance(table.get(name), Mapping)
        else value
        for name, value in changes.items()
    }
    return {**table, **both}


def from_values(values: Table) -> Settings:
    """Settings from a TOML or JSON table, each checked; a judge's address without credentials.

    Controls may be given as `role=folder`. Errors: `ValueError` for an unknown key, for one that
    is lacking, of another kind, out of its bounds, or at odds with another.

    >>> tables = {"model": {"name": "m", "layers": [1, 2]}, "adapters": {"organism": "o"}}
    >>> from_values({"preset": "x", "prompts": {"file": "p.json"}, **tables}).model.window
    [1, 2]
    """
    for name in {"preset", *groups()} & {*values}:
        _refuse_kind(name, values[name])
    _refuse_keys(values)
    tables = {**values, "adapters": _in_roles(values["adapters"])}
    settings: Settings = _built(Settings, tables, "")
    check(settings)
    return settings


def _refuse_kind(name: str, value: Any) -> None:
    if isinstance(value, Mapping) != (name != "preset"):
        wanted = "str" if name == "preset" else "a table"
        raise InputError(f"The setting {name}={shown(value)} was given; it must be {wanted}.")


def _refuse_keys(values: Table) -> None:
    keys = list(_keys(Settings, values, ""))
    unknown = [name for name, known in keys if not known]
    lacking = [name for name, known in keys if known]
    if unknown or lacking:
        names = [*groups(), *places()]
        close = [difflib.get_close_matches(n.rpartition(".")[2], names, n=1) for n in unknown]
        near = ", ".join(repr(match[0]) for match in close if match)
        there = ", ".join(".".join(place) for place in places().values())
        raise InputError(
            f"The settings have {', '.join(unknown) or 'no'} unknown keys and lack "
            f"{', '.join(lacking) or 'none'}; there are {there}. "
            f"{f'Did you mean {near}? ' if near else ''}Mend the preset."
        )


def _keys(kind: Any, values: Table, before: str) -> Iterator[tuple[str, bool]]:
    """The keys that are unknown (False), and those that are lacking (True)."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    kinds = typing.get_type_hints(kind)
    yield from ((f"{before}{key}", False) for key in values if key not in fields)
    for name, field in fields.items():
        due = field.default is field.default_factory is dataclasses.MISSING
        if dataclasses.is_dataclass(kinds[name]):
            inner = values.get(name, {})
            if isinstance(inner, Mapping):
                yield from _keys(kinds[name], inner, f"{before}{name}.")
        elif due and name not in values:
            yield f"{before}{name}", True


def _in_roles(adapters: Table) -> dict[str, Any]:
    entries, others = adapters.get("controls", ()), adapters.get("further", ())
    if not all(isinstance(e, list | tuple) for e in (entries, others)) or not all(
        isinstance(entry, str) for entry in entries
    ):
        return dict(adapters)  # of another kind, as `_built` will say
    bare = [entry for entry in entries if "=" not in entry]
    named = [entry.partition("=")[::2] for entry in entries if "=" in entry]
    _refuse_roles(entries, [role for role, _ in named])
    single = {role: folder for role, folder in named if role != "further"}
    more = [folder for role, folder in named if role == "further"]
    further = {"further": [*others, *more]} if more else {}
    return {**adapters, **single, **further, "controls": bare}


def _refuse_roles(entries: Sequence[str], roles: Sequence[str]) -> None:
    unknown = [role for role in roles if role not in ROLES]
    twice = [role for n, role in enumerate(roles) if role in roles[:n] and role != "further"]
    if unknown or twice:
        what = f"{unknown[0]!r} is no role" if unknown else f"{twice[0]!r} is given twice"
        raise InputError(
            f"controls={shown(tuple(entries))} was given; {what}. Give role=folder, each role "
            f"once, but for further: {', '.join(ROLES)}; or a folder alone."
        )


def _built(kind: Any, values: Table, before: str) -> Any:
    kinds = typing.get_type_hints(kind)
    return kind(**{key: _typed(f"{before}{key}", kinds[key], v) for key, v in values.items()})


def _typed(name: str, kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return _built(kind, value, f"{name}.")
    option = {".".join(place): option for option, place in places().items()}.get(name, name)
    value = without_credentials(value) if _is_address(option, value) else value
    inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    many = inner is not kind
    values = value if many and isinstance(value, list | tuple) else [value]
    if many == isinstance(value, list | tuple) and all(_fits(v, inner) for v in values):
        if dataclasses.is_dataclass(inner):
            return tuple(_entry(name, inner, entry) for entry in values)
        return tuple(values) if many else value
    wanted = "a table" if dataclasses.is_dataclass(inner) else inner.__name__
    raise InputError(
        f"The setting {option}={without_credentials(shown(value))} was given; it must be "
        f"{f'a list of {wanted}' if many else wanted}."
    )


def _entry(name: str, kind: Any, entry: Table) -> Any:
    wrong = [key for key, _ in _keys(kind, entry, "")]
    if wrong:
        raise InputError(
            f"{name} has an entry {shown(dict(entry))}; {', '.join(wrong)} is unknown or lacking. "
            f"An entry has {', '.join(field.name for field in dataclasses.fields(kind))}."
        )
    return _built(kind, entry, f"{name}.")


def _fits(value: Any, kind: Any) -> bool:
    return isinstance(value, Mapping) if dataclasses.is_dataclass(kind) else type(value) is kind


def _is_address(option: str, value: Any) -> bool:
    return option in ADDRESSES and isinstance(value, str)
