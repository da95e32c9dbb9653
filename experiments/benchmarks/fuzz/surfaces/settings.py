"""Settings of an audit: presets with fields out of place, command lines with odd values."""

from __future__ import annotations

import contextlib
import io
import math
import tomllib
import typing
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from experiments.audit.inputs import checked
from experiments.audit.settings import Settings, from_values
from experiments.benchmarks.fuzz.damage import altered
from experiments.benchmarks.fuzz.outcome import Case
from experiments.rm_sycophancy.__main__ import chosen, command_line
from traits import available

_WORDS: tuple[str, ...] = (
    *("", "0", "1", "-1", "2", "3", "nan", "inf", "-inf", "1e400", "0.7", "99999999999999999999"),
    *("vote", "voet", "vote,vote", "sycophancy", "sycophancy,sycophancy", "alignment/honesty"),
    *("unbiased", "clean", "organism", "../clean", "ten_biases", "nowhere", "/nowhere", "."),
    *("15,22", "22,15", "-1,3", "a,b", "3", "29,31", "full", "quick", "ndif", "float32", "nf5"),
    *("http://a:b@localhost:1/v1", "localhost", "test", "é", "a b", "\udcff"),
)
_OPTIONS: tuple[str, ...] = (
    *("model", "base", "organism", "control", "controls", "habits", "benign", "held-out"),
    *("judge-at", "judge", "temperature", "dtype", "prompts", "split", "traits", "evaluation"),
    *("layers", "remote", "limit", "pairs", "samples", "max-new-tokens", "repetitions", "seed"),
)


def presets(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One table of settings a case, of a shipped preset with up to three alterations."""
    folder = files("experiments.rm_sycophancy") / "presets"
    shipped = [
        tomllib.loads(entry.read_text("utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".toml")
    ]
    while True:
        table: Any = {"preset": "fuzz", **shipped[int(rng.integers(len(shipped)))]}
        words = []
        for _ in range(int(rng.integers(1, 4))):
            done, table = altered(table, rng)
            words.append(done)
        yield Case("; ".join(words), lambda t=table: from_values(t), lambda v, t=table: _held(v, t))


def _held(settings: Settings, table: Mapping[str, Any]) -> bool:
    """Each value of the table is the setting's, of the setting's kind, and means something."""
    kinds = typing.get_type_hints(Settings)
    for key, value in table.items():
        held = getattr(settings, key)
        held = list(held) if isinstance(held, tuple) else held
        inner = (typing.get_args(kinds[key]) or [kinds[key]])[0]
        values = value if isinstance(value, list) else [value]
        if key not in ("vet", "judge_at") and held != value:
            return False
        if any(type(v) is not inner for v in values):
            return False
    return _means_something(settings)


def _means_something(settings: Settings) -> bool:
    numbers = [settings.temperature, settings.alpha, settings.smallest, *settings.depth]
    names = [str(name).rpartition("/")[2].casefold() for name in settings.controls]
    arms = [*names, "clean", "organism"]
    return (
        all(math.isfinite(number) and number >= 0 for number in numbers)
        and 0 <= settings.seed < 2**63
        and min(settings.limit, settings.pairs) >= 0
        and min(settings.samples, settings.max_new_tokens) >= 1
        and len(settings.layers) == 2
        and 0 <= settings.layers[0] <= settings.layers[1]
        and len(set(arms)) == len(arms)
        and len(set(settings.traits)) == len(settings.traits)
        and len(set(settings.methods)) == len(settings.methods)
        and settings.method in settings.methods
    )


def options(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One command line a case; what is accepted has to be a run that can load its model."""
    while True:
        line = [
            "run",
            "--preset",
            str(rng.choice(["tiny", "smollm2"])),
            "--out",
            str(place / "run"),
        ]
        for _ in range(int(rng.integers(1, 4))):
            line += [f"--{rng.choice(_OPTIONS)}", str(rng.choice(_WORDS))]
        what = " ".join(line[1:2] + line[5:])
        yield Case(
            what, lambda a=line: _prepared(a), _can_begin, lambda: not (place / "run").exists()
        )


def _prepared(line: list[str]) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        settings, _, _ = chosen(command_line().parse_args(line))
        return checked(settings)


def _can_begin(inputs: Any) -> bool:
    settings = inputs.settings
    biases = {str(prompt.labels.get("bias", "")) for prompt in inputs.prompts}
    return (
        _means_something(settings)
        and set(settings.held_out) <= biases
        and (not settings.benign or Path(settings.benign).is_dir())
        and len(inputs.prompts) > 0
        and (settings.limit == 0 or len(inputs.prompts) <= settings.limit)
        and {contrast.name for contrast in inputs.contrasts} >= {*settings.trait_names}
        and bool(available())
    )
