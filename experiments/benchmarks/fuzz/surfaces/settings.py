"""Settings of an audit: presets with fields out of place, command lines with odd values."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from experiments.audit.command import chosen, command_line
from experiments.audit.inputs import checked
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.presets import SHARED
from experiments.audit.settings.tables import from_values, merged
from experiments.benchmarks.fuzz.damage import altered
from experiments.benchmarks.fuzz.outcome import Case
from experiments.rm_sycophancy.experiment import EXPERIMENT
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
    tables = {
        entry.name: tomllib.loads(entry.read_text("utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".toml")
    }
    shared = tables.pop(f"{SHARED}.toml")
    shipped = [merged(shared, table) for table in tables.values()]
    while True:
        table: Any = {"preset": "fuzz", **shipped[int(rng.integers(len(shipped)))]}
        words = []
        for _ in range(int(rng.integers(1, 4))):
            done, table = altered(table, rng)
            words.append(done)
        yield Case("; ".join(words), lambda t=table: from_values(t), lambda v, t=table: _held(v, t))


def _held(settings: Settings, table: Mapping[str, Any]) -> bool:
    """Each value of the table is the setting's, of the setting's kind, and means something."""
    return _as_given(json.loads(json.dumps(asdict(settings))), table) and _means_something(settings)


def _as_given(held: Any, given: Any, name: str = "") -> bool:
    if name in ("vet", "judge_at"):
        return isinstance(held, str)
    if isinstance(given, dict):
        return all(key in held and _as_given(held[key], given[key], key) for key in given)
    if isinstance(given, list):
        return len(held) == len(given) and all(map(_as_given, held, given))
    return type(held) is type(given) and held == given


def _means_something(settings: Settings) -> bool:
    answers, fixed, vectors = settings.answers, settings.hypothesis, settings.vectors
    arms = [arm.name.casefold() for arm in settings.adapters.arms]
    layers = settings.model.layers
    numbers = [answers.temperature, fixed.alpha, fixed.smallest, *fixed.depth]
    return (
        all(math.isfinite(number) and number >= 0 for number in numbers)
        and 0 <= settings.null.seed < 2**63
        and min(settings.prompts.limit, vectors.pairs) >= 0
        and min(answers.samples, answers.max_new_tokens) >= 1
        and len(layers) == 2
        and 0 <= layers[0] <= layers[1]
        and len(set(arms)) == len(arms)
        and len(set(vectors.traits)) == len(vectors.traits)
        and len(set(vectors.methods)) == len(vectors.methods)
        and vectors.method in vectors.methods
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
        settings, _, _ = chosen(EXPERIMENT, command_line(EXPERIMENT).parse_args(line))
        return checked(settings, EXPERIMENT)


def _can_begin(inputs: Any) -> bool:
    settings = inputs.settings
    biases = {str(prompt.labels.get("bias", "")) for prompt in inputs.prompts}
    return (
        _means_something(settings)
        and (settings.prompts.limit > 0 or set(settings.prompts.held_out) <= biases)
        and (not settings.adapters.benign or Path(settings.adapters.benign).is_dir())
        and len(inputs.prompts) > 0
        and (settings.prompts.limit == 0 or len(inputs.prompts) <= settings.prompts.limit)
        and {contrast.name for contrast in inputs.contrasts} >= {*settings.vectors.names}
        and bool(available())
    )
