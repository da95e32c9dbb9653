"""What one audit is: a preset's values, and the hash of everything they stand for."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.audit.validity import check, last_name, shown
from experiments.audit.verdict.hypothesis import ALPHA, PRIMARY, SHIPPED
from tracekit.model.embedded import datasets
from tracekit.storage.provenance import digest
from traits.contrast_sets.contrast import ContrastSet, available, load_contrast
from traits.contrast_sets.judge import without_credentials

CALIBRATION = "embedded_calibration.json"
SHIPPED_SETS = (CALIBRATION, "embedded_held_out.json")
ADDRESSES = ("vet", "judge_at")


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

    `revision` and `base_revision` pin commits of the hub; `remote` is "ndif" or "local".
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

    @property
    def contrasts(self) -> dict[str, ContrastSet]:
        """The contrast set of each trait, by its full name.

        Errors: `ValueError` where two have one name, or names that differ only in case.
        """
        sets: dict[str, ContrastSet] = {}
        places: dict[str, str] = {}
        for given in self.traits or available():
            contrast = load_contrast(given)
            # a set's files are called by its name, with a dot for the stroke
            other = places.setdefault(contrast.name.replace("/", ".").casefold(), given)
            if other != given:
                raise ValueError(
                    f"The traits {other!r} and {given!r} were asked for, and both are called "
                    f"{contrast.name!r}. Name one of them, or rename a folder or the one above."
                )
            sets[contrast.name] = contrast
        return sets

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
        arms |= {last_name(name): name for name in self.controls}
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
    """Settings from a TOML or JSON table, each checked; a judge's address without credentials.

    Errors: `ValueError` for an unknown key, for one that is lacking, of another kind, out of its
    bounds, or at odds with another.

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
        close = [difflib.get_close_matches(str(key), kinds, n=1) for key in unknown]
        near = ", ".join(repr(match[0]) for match in close if match)
        raise ValueError(
            f"The settings have {', '.join(map(str, unknown)) or 'no'} unknown keys and lack "
            f"{', '.join(lacking) or 'none'}; there are {', '.join(kinds)}. "
            f"{f'Did you mean {near}? ' if near else ''}Mend the preset."
        )
    given = {key: _public(key, value) for key, value in values.items()}
    made = Settings(**{key: _typed(key, kinds[key], value) for key, value in given.items()})
    check(made)
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
        "controls": [last_name(name) for name in settings.controls],
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
        "controls": {last_name(name): _adapter(name) for name in settings.controls},
        "benign": _hash(sorted(Path(settings.benign).glob("*/adapter_*.*"))),
    }
    return {"settings": portable, "contents": contents}


def _public(key: str, value: Any) -> Any:
    return without_credentials(value) if key in ADDRESSES and isinstance(value, str) else value


def _typed(key: str, kind: Any, value: Any) -> Any:
    inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    many = inner is not kind
    values = value if many and isinstance(value, list | tuple) else [value]
    fits = many == isinstance(value, list | tuple) and all(type(v) is inner for v in values)
    if not fits:
        wanted = f"a list of {inner.__name__}" if many else inner.__name__
        found = without_credentials(shown(value))
        raise ValueError(f"The setting {key}={found} was given; it must be {wanted}.")
    return tuple(values) if many else value


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
