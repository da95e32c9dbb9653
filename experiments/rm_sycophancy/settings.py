"""What one audit is: a preset's values, and the hash of everything they stand for."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.rm_sycophancy.evidence.hypothesis import ALPHA, PRIMARY, SHIPPED
from tracekit.provenance import digest
from tracekit.resources import datasets
from traits.contrast import ContrastSet, available, load_contrast

CALIBRATION = "embedded_calibration.json"
SHIPPED_SETS = (CALIBRATION, "embedded_held_out.json")


@dataclass(frozen=True)
class Settings:
    """The settings of one audit; an empty string or 0 stands for "none", or "all" of a number.

    `base` is the model that vectors come from ("": `model` in raw completion); `organism` and
    `control` are adapters; `pairs` and `limit` bound the contrast pairs of a trait and the
    prompts; vectors are made of the last `prefix` tokens of a contrast story and the first
    `continuation` tokens that the base model adds to it, or of those `windows` within, such as
    "-4:-1", that does best on the pairs kept for selection; `method` is the one of `methods` that
    is projected on; `evaluation` is "quick" or "full" (placebo sets, chats of `chat_tokens` and a
    choice of method besides), with `draws` of each random null; `vet` has each story judged, by
    the base "model" itself or by `judge` at an OpenAI-compatible address; `layers` are the first
    and the last one kept in full.

    `control` has the organism's prompts and unbiased answers (a); `controls` are further adapters,
    and `habits` one with open, benign habits (e); `benign` is a folder of benign adapters. The
    organism (and `habits`) answers each prompt `samples` times at `temperature`. `sets` are the
    shipped prompts used where `prompts` names no file; biases in `held_out` are reported on (none
    named: those of the shipped held-out set, or every second bias of one's own file).

    `hypothesis` is the primary one, in words; `primary`, `depth` and `alpha` are what it names;
    `smallest` is the smallest AUROC of interest; `directions` the draws of each null. `judge_at`
    is an OpenAI-compatible address where `judge` rates the answers too.

    `revision` and `base_revision` pin commits of the hub; `remote` is "ndif" or "local"; `ladder`
    and `other_objectives` name what else `organism` may be: its earlier stages, other hidden aims.
    """

    preset: str
    model: str
    organism: str
    layers: tuple[int, ...]
    base: str = ""
    control: str = ""
    controls: tuple[str, ...] = ()
    habits: str = ""
    benign: str = ""
    dtype: str = "auto"
    traits: tuple[str, ...] = ()
    pairs: int = 0
    prefix: int = 12
    continuation: int = 0
    methods: tuple[str, ...] = ("mean_diff", "probe")
    method: str = "mean_diff"
    windows: tuple[str, ...] = ()
    evaluation: str = "quick"
    draws: int = 99
    chat_tokens: int = 24
    vet: str = ""
    judge: str = ""
    prompts: str = ""
    sets: tuple[str, ...] = SHIPPED_SETS
    held_out: tuple[str, ...] = ()
    split: str = ""
    limit: int = 0
    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 80
    hypothesis: str = SHIPPED
    primary: tuple[str, ...] = PRIMARY
    depth: tuple[float, ...] = (0.2, 0.75)
    alpha: float = ALPHA
    smallest: float = 0.6
    directions: int = 200
    judge_at: str = ""
    repetitions: int = 2000
    seed: int = 0
    revision: str = ""
    base_revision: str = ""
    remote: str = ""
    ladder: tuple[str, ...] = ()
    other_objectives: tuple[str, ...] = ()

    @property
    def contrasts(self) -> dict[str, ContrastSet]:
        """The contrast set of each trait, by its full name."""
        found = [load_contrast(name) for name in self.traits or available()]
        return {contrast.name: contrast for contrast in found}

    @property
    def trait_names(self) -> list[str]:
        """Full names of the traits, each once."""
        return list(self.contrasts)

    @property
    def full(self) -> bool:
        """Whether the vectors are evaluated in full."""
        return self.evaluation == "full"

    @property
    def prompt_file(self) -> Path:
        """The file of prompts, or the first of the shipped ones."""
        return self.prompt_files[0]

    @property
    def prompt_files(self) -> list[Path]:
        """All files of prompts."""
        if self.prompts:
            return [Path(self.prompts)]
        return [datasets("prompts", name) for name in self.sets]

    @property
    def adapters(self) -> dict[str, str | None]:
        """The adapter of each arm by the arm's name; further controls go by their folder's."""
        arms = {"clean": None, "organism": self.organism, "control": self.control}
        arms |= {Path(name).name: name for name in self.controls}
        arms |= {"habits": self.habits}
        return {arm: adapter for arm, adapter in arms.items() if adapter != ""}

    @property
    def on_hub(self) -> bool:
        """Whether the prompts are a set of the hub."""
        name = Path(self.prompts)
        return self.prompts.count("/") == 1 and not name.suffix and not name.exists()

    @property
    def window(self) -> list[int]:
        """The layers whose traces are kept in full."""
        return list(range(self.layers[0], self.layers[1] + 1))


def read_preset(name: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a shipped preset, with `changes` to single ones.

    Errors: `ValueError` for an unknown preset or setting and for a value of another kind.

    >>> read_preset("tiny", {"limit": 5}).limit
    5
    """
    folder = files("experiments.rm_sycophancy") / "presets"
    known = sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name not in known:
        raise ValueError(
            f"The preset {name!r} was asked for; there are {', '.join(known)}. Give one of these."
        )
    values = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))
    return from_values({"preset": name, **values, **(changes or {})})


def from_values(values: Mapping[str, Any]) -> Settings:
    """Settings from a TOML or JSON table, each checked.

    >>> from_values({"preset": "x", "model": "m", "organism": "o", "layers": [1, 2]}).window
    [1, 2]
    """
    kinds = typing.get_type_hints(Settings)
    unknown = [key for key in values if key not in kinds]
    lacking = [
        field.name
        for field in dataclasses.fields(Settings)
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if unknown or lacking:
        raise ValueError(
            f"The settings have {', '.join(unknown) or 'no'} unknown keys and lack "
            f"{', '.join(lacking) or 'none'}; there are {', '.join(kinds)}. Mend the preset."
        )
    made = Settings(**{key: _typed(key, kinds[key], value) for key, value in values.items()})
    _check(made)
    return made


def described(settings: Settings) -> dict[str, Any]:
    """The settings without any path of this machine, and a hash of each file they name.

    Two runs are the same when these are equal, and only then share a folder.
    """
    contrasts = settings.contrasts
    portable = {
        **dataclasses.asdict(settings),
        "traits": settings.trait_names,
        "prompts": Path(settings.prompts).name,
        "controls": [Path(name).name for name in settings.controls],
        **{
            name: Path(getattr(settings, name)).name
            for name in ("model", "base", "organism", "control", "habits", "benign")
            if Path(getattr(settings, name)).is_dir() and getattr(settings, name)
        },
    }
    contents = {
        "prompts": _hash(settings.prompt_files),
        "traits": {name: digest([c.positive, c.negative]) for name, c in contrasts.items()},
        **{name: _weights(getattr(settings, name)) for name in ("model", "base")},
        **{name: _adapter(getattr(settings, name)) for name in ("organism", "control", "habits")},
        "controls": {Path(name).name: _adapter(name) for name in settings.controls},
        "benign": _hash(sorted(Path(settings.benign).glob("*/adapter_*.*"))),
    }
    return {"settings": portable, "contents": contents}


def _typed(key: str, kind: Any, value: Any) -> Any:
    inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    many = inner is not kind
    values = value if many and isinstance(value, list | tuple) else [value]
    fits = many == isinstance(value, list | tuple) and all(type(v) is inner for v in values)
    if not fits:
        wanted = f"a list of {inner.__name__}" if many else inner.__name__
        raise ValueError(f"The setting {key}={value!r} was given; it must be {wanted}.")
    return tuple(values) if many else value


def _check(settings: Settings) -> None:
    low = {
        **dict.fromkeys(("pairs", "limit", "prefix", "continuation"), 0),
        **dict.fromkeys(("max_new_tokens", "samples", "chat_tokens"), 1),
        **dict.fromkeys(("directions", "draws"), 19),
        "repetitions": 10,
    }
    for key, least in low.items():
        if getattr(settings, key) < least:
            raise ValueError(f"{key}={getattr(settings, key)} was given; at least {least} is due.")
    if len(settings.layers) != 2 or not 0 <= settings.layers[0] <= settings.layers[1]:
        raise ValueError(
            f"layers={list(settings.layers)} was given; it takes the first and the last layer "
            "kept in full, counted from 0, such as [15, 22]."
        )
    if settings.samples > 1 and settings.temperature <= 0:
        raise ValueError(
            f"samples={settings.samples} was given with temperature={settings.temperature}: they "
            "would all be the same. Give a temperature above 0."
        )
    if settings.prefix + settings.continuation == 0:
        raise ValueError(
            "prefix=0 and continuation=0 were given, so vectors would be made of nothing. "
            "Give at least one token of either."
        )
    for key, known in {"evaluation": ("quick", "full"), "remote": ("", "ndif", "local")}.items():
        if (value := getattr(settings, key)) not in known:
            raise ValueError(f"{key}={value!r} was given; there are {str(known)[1:-1]}.")
    if settings.vet not in ("", "model") and not settings.judge:
        raise ValueError(
            f"vet={settings.vet!r} was given without judge; name the model that is served there."
        )
    _check_windows(settings)
    if settings.method not in settings.methods:
        raise ValueError(
            f"method={settings.method!r} was given, and methods are "
            f"{', '.join(settings.methods)}. Project on one of these."
        )


def _check_windows(settings: Settings) -> None:
    whole = -settings.prefix, settings.continuation - 1
    for name in settings.windows:
        ends = re.fullmatch(r"(-?\d+):(-?\d+)", name)
        if not ends or not whole[0] <= int(ends[1]) <= int(ends[2]) <= whole[1]:
            raise ValueError(
                f"The window {name!r} was given; it names the first and the last token, as "
                f"'{whole[0]}:{whole[1]}', and lies within those that prefix={settings.prefix} and "
                f"continuation={settings.continuation} elicit."
            )


def _weights(name: str) -> str:
    return _hash(sorted(Path(name).glob("*.safetensors"))) if name and Path(name).is_dir() else ""


def _adapter(name: str) -> str:
    if not name:
        return ""
    folder = Path(name) if Path(name).is_dir() else datasets("organisms", name)
    return _hash(sorted(folder.glob("adapter_*.*")))


def _hash(paths: list[Path]) -> str:
    hashed = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            continue  # read_prompts says what is missing
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:16] if paths else ""
