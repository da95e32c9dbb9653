"""What the settings of an audit may be: one table of bounds, and what must go together."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.audit.settings.adapters import CLEAN, CONTROL, HABITS, ORGANISM, by_arm
from experiments.audit.settings.groups import Model, Settings, Vectors, places
from tracekit.errors import InputError
from tracekit.model.embedded import adapter_folder
from tracekit.transcripts.pooling import Pooling
from traits import METHODS
from traits.contrast_sets.judge import check_address

LARGEST_SEED = 2**63 - 1  # of torch's generators
# field: the least and the most that a number may be; every number of a list, too
BOUNDS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("pairs", "limit", "prefix", "continuation"), (0, 1_000_000)),
    **dict.fromkeys(("max_new_tokens", "chat_tokens"), (1, 1_000_000)),
    "chat_pairs": (0, 20),
    "samples": (1, 10_000),
    "temperature": (0.0, 100.0),
    **dict.fromkeys(("directions", "draws"), (19, 100_000)),
    "repetitions": (10, 1_000_000),
    "seed": (0, LARGEST_SEED),
    "layers": (0, 10_000),
    "depth": (0.0, 1.0),
    "alpha": (0.0001, 0.5),
    "smallest": (0.5001, 0.9999),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "evaluation": ("quick", "full"),
    "remote": ("", "ndif", "local"),
    "methods": tuple(METHODS),
}
DUE = ("preset", "model", "hypothesis", "methods")
EDITED = ("deleted", "inserted")  # texts that lie beside the arms' own


def check(settings: Settings) -> None:
    """Raise `ValueError` for the first setting that means nothing, alone or beside the others."""
    check_value("preset", settings.preset)
    for option, (group, name) in places().items():
        check_value(option, getattr(getattr(settings, group), name))
    _check_model(settings.model)
    _check_vectors(settings.vectors)
    _check_pooling(settings.hypothesis.pooling)
    _check_pairs(settings)
    _check_judge(settings)
    _check_arms(settings)
    _check_elsewhere(settings)


def check_value(name: str, value: Any) -> None:
    """Raise `ValueError` for a value that its setting cannot have, whatever the others are.

    >>> check_value("seed", 3)
    """
    entries = value if isinstance(value, tuple) else (value,)
    if name in DUE and not (entries and all(entries)):
        raise InputError(f"{name}={shown(value)} was given; it must not be empty.")
    for entry in entries:
        _check_entry(name, entry, value)
    twice = [entry for n, entry in enumerate(entries) if entry in entries[:n]]
    if twice and isinstance(entries[0], str):
        raise InputError(f"{name}={shown(value)} was given; it names {twice[0]!r} twice.")


def _check_entry(name: str, entry: Any, value: Any) -> None:
    if name in CHOICES and entry not in CHOICES[name]:
        known = ", ".join(map(repr, CHOICES[name]))
        raise InputError(f"{name}={shown(value)} was given; there are {known}.")
    if name in BOUNDS:
        check_number(name, entry, *BOUNDS[name])
    if isinstance(entry, str):
        strange = [c for c in entry if not c.isprintable() and not c.isspace()]
        if strange or (entry and not entry.strip()) or (isinstance(value, tuple) and not entry):
            raise InputError(
                f"{name}={shown(value)} was given; {entry!r} is no name. Leave it out, or mend it."
            )


def check_number(name: str, number: float, least: float, most: float) -> None:
    """Raise `ValueError` for a number that is not finite or outside `least` to `most`.

    >>> check_number("temperature", 0.7, 0, 100)
    """
    if not math.isfinite(number):
        raise InputError(f"{name}={number} was given; it must be a finite number.")
    if number < least:
        raise InputError(f"{name}={number} was given; at least {least} is due.")
    if number > most:
        raise InputError(f"{name}={number} was given; it must be at most {most}.")


def _check_model(model: Model) -> None:
    if len(model.layers) != 2 or model.layers[0] > model.layers[1]:
        raise InputError(
            f"layers={list(model.layers)} was given; it takes the first and the last layer "
            "kept in full, counted from 0, such as [15, 22]."
        )
    if model.base_revision and not model.base:
        raise InputError(
            f"base_revision={model.base_revision!r} was given without a base, so it pins "
            "nothing. Give --base, or leave it out."
        )


def _check_vectors(vectors: Vectors) -> None:
    if vectors.prefix + vectors.continuation == 0:
        raise InputError(
            "prefix=0 and continuation=0 were given, so vectors would be made of nothing. "
            "Give at least one token of either."
        )
    if vectors.method not in vectors.methods:
        raise InputError(
            f"method={vectors.method!r} was given, and methods are "
            f"{', '.join(vectors.methods)}. Project on one of these."
        )
    whole = -vectors.prefix, vectors.continuation - 1
    for name in vectors.windows:
        ends = re.fullmatch(r"(-?\d+):(-?\d+)", name)
        if not ends or not whole[0] <= int(ends[1]) <= int(ends[2]) <= whole[1]:
            raise InputError(
                f"windows: the window {shown(name)} was given; it names the first and the last "
                f"token, as '{whole[0]}:{whole[1]}', and lies within those that "
                f"prefix={vectors.prefix} and continuation={vectors.continuation} elicit."
            )


def _check_pooling(pooling: str) -> None:
    try:
        told = Pooling.read(pooling)
    except InputError as error:
        raise InputError(f"pooling={pooling!r} was given. {error}") from error
    if told.way == "attention" or str(told) != pooling:
        known = f"write {str(told)!r}" if told.way != "attention" else "only a probe has one"
        raise InputError(f"pooling={pooling!r} was given; {known}. Or take 'mean'.")


def _check_pairs(settings: Settings) -> None:
    depth, answers = settings.hypothesis.depth, settings.answers
    if len(depth) != 2 or depth[0] >= depth[1]:
        raise InputError(
            f"depth={list(depth)} was given; it takes the shares of the depth between "
            "which a layer may be chosen, such as [0.2, 0.75]."
        )
    if answers.samples > 1 and answers.temperature <= 0:
        raise InputError(
            f"samples={answers.samples} was given with temperature={answers.temperature}: they "
            "would all be the same. Give a temperature above 0."
        )
    if not settings.prompts.paths:
        raise InputError("prompts='' and sets=[] were given, so nothing is asked. Give --prompts.")
    for pair in settings.hypothesis.decompositions:
        if len(pair.signs) != 2 or {*map(abs, pair.signs)} != {1} or len(pair.kinds) not in (0, 2):
            raise InputError(
                f"decompositions: {pair.name!r} has signs={list(pair.signs)} and "
                f"kinds={list(pair.kinds)}; it takes two signs, 1 or -1, and two kinds or none."
            )


def _check_judge(settings: Settings) -> None:
    judge = settings.answers.judge
    served = {"vet": settings.vectors.vet, "judge_at": settings.answers.judge_at}
    asked = {k: v for k, v in served.items() if v and (k, v) != ("vet", "model")}
    for name, address in asked.items():
        check_address(address, name)
        if not judge:
            raise InputError(
                f"{name}={address!r} was given without judge; name the model that is served there."
            )
    if judge and not asked:
        raise InputError(
            f"judge={judge!r} was given, and nothing asks it. Give its address as "
            "--judge-at, or leave it out."
        )


def _check_elsewhere(settings: Settings) -> None:
    """Files and served models are each of one arm that there is."""
    answers, arms = settings.answers, settings.arms
    names = [
        *answers.served_adapter,
        *([f"{CLEAN}={answers.served_model}"] * bool(answers.served_model)),
    ]
    for option, entries in (("from", answers.given), ("served_adapter", names)):
        told = by_arm(entries)
        unknown = [arm for arm in told if arm not in arms]
        if unknown or len(told) < len(entries):
            what = f"{unknown[0]!r} is no arm" if unknown else "an arm is named twice"
            raise InputError(
                f"{option}={shown(tuple(entries))} was given; {what}. Give arm=… once each, of "
                f"{', '.join(arms)}; without an arm it is the organism's."
            )
    both = sorted({*by_arm(answers.given)} & {*by_arm(names)})
    if both:
        raise InputError(
            f"The arm {both[0]!r} was given a file of answers and a served model. Leave one out."
        )
    if bool(answers.server) != bool(names):
        raise InputError(
            f"server={answers.server!r} was given with served_model={answers.served_model!r} and "
            f"served_adapter={list(answers.served_adapter)}. Give the address and what the model "
            "(or the adapter on it) is called there."
        )
    if answers.server:
        check_address(answers.server, "server")


def _check_arms(settings: Settings) -> None:
    own = {CLEAN, ORGANISM, CONTROL, HABITS, *EDITED}
    taken = {*own, *(arm.name for arm in settings.adapters.arms if arm.role == "style")}
    for arm in (arm for arm in settings.adapters.arms if arm.role == "further"):
        if not arm.name or arm.name.casefold() in taken:
            given = (*settings.adapters.further, *settings.adapters.controls)
            raise InputError(
                f"controls={shown(given)} was given; a control goes by its folder's "
                f"name, and {arm.adapter!r} would be the arm {arm.name!r}. No arm of its own may "
                f"be called {', '.join(sorted(own))}, or as another control is: rename its folder."
            )
        taken.add(arm.name.casefold())


def check_benign(settings: Settings) -> None:
    """Raise `ValueError` for a folder of benign adapters that holds none, or another arm's name.

    An adapter that is an arm of the run already, the same folder, counts once.
    """
    if not (folder := settings.adapters.benign):
        return
    paths = sorted(Path(folder).glob("*/adapter_config.json"))
    if not paths:
        raise InputError(
            f"The folder of benign adapters {folder!r} was asked for; it "
            f"{'holds no adapter' if Path(folder).is_dir() else 'does not exist'}. Give "
            "a folder whose folders hold an adapter_config.json each."
        )
    arms = {arm.name.casefold(): arm.adapter for arm in settings.adapters.arms}
    for path in paths:
        arm = arms.get(path.parent.name.casefold(), "")
        if arm is None or (arm and not _same(arm, path.parent)):
            raise InputError(
                f"The benign adapter {str(path.parent)!r} was given, and another arm of this run "
                f"is called {path.parent.name!r}. Rename its folder."
            )


def _same(adapter: str, folder: Path) -> bool:
    place = adapter_folder(adapter)
    return place.is_dir() and place.samefile(folder)


def shown(value: Any) -> str:
    """A value as an error shows it: the first 200 characters.

    >>> shown((1, 2))
    '[1, 2]'
    """
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 200 else f"{text[:200]}…"
