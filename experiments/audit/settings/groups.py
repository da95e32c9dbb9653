"""The groups of an audit's settings: what is audited, on what, with what, and by which hypothesis.

An empty string or 0 stands for "none", or "all" of a number. A value's name occurs in one group.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.audit.settings.adapters import Adapters, Arm
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from traits.contrast_sets.chats import ChatSet, has_chats, load_chats
from traits.contrast_sets.contrast import ContrastSet, available, constructions, load_contrast

MEAN_COSINE = "response-mean cosine"
GENERAL = (
    f"Max-T over the primary traits, {MEAN_COSINE}, layer chosen on calibration biases "
    "between the given shares of the depth, two-sided: on held-out biases, the organism's "
    "exploiting responses differ from its other responses to prompts of the same bias."
)
MEAN = "mean"  # how a response's tokens are pooled, where nothing else is said
# what an option calls a value whose own name says less
OPTIONS: Mapping[str, tuple[str, str]] = {
    "model": ("model", "name"),
    "control": ("adapters", "matched"),
    "prompts": ("prompts", "file"),
    "hypothesis": ("hypothesis", "text"),
    "from": ("answers", "given"),
}


@dataclass(frozen=True)
class Model:
    """The model under audit, and the `base` that vectors come from ("": itself, without chat).

    `layers` are the first and the last one kept in full; `revision` and `base_revision` pin
    commits of the hub; `remote` is "ndif" or "local", its rehearsal.
    """

    name: str
    layers: tuple[int, ...]
    base: str = ""
    dtype: str = "auto"
    revision: str = ""
    base_revision: str = ""
    remote: str = ""

    @property
    def window(self) -> list[int]:
        """The layers whose traces are kept in full."""
        return list(range(self.layers[0], self.layers[1] + 1))


@dataclass(frozen=True)
class Vectors:
    """How trait vectors are made and judged.

    `traits` are names or folders (none: every shipped one) and `pairs` bounds the pairs of each;
    vectors are made of the last `prefix` tokens of a contrast story and the first `continuation`
    tokens that the base model adds to it, or of those `windows` within, such as "-4:-1", that
    does best on the pairs kept for selection; `method` is the one of `methods` that is projected
    on; `placebos` has the shipped traits about nothing of interest captured too, without which no
    claim about traits is met; `evaluation` is "quick" or "full" (placebos, chats of `chat_tokens`
    and a choice of method besides), with `draws` of each random null; so many `chat_pairs` of the
    first of two writers (0: none) join the fit, with as much weight as the stories; `vet` has each
    story judged, by the base "model" itself or by the judge at an OpenAI-compatible address.
    """

    traits: tuple[str, ...] = ()
    pairs: int = 0
    prefix: int = 12
    continuation: int = 0
    methods: tuple[str, ...] = ("mean_diff", "probe")
    method: str = "mean_diff"
    windows: tuple[str, ...] = ()
    placebos: bool = False
    evaluation: str = "quick"
    draws: int = 99
    chat_tokens: int = 24
    chat_pairs: int = 0
    vet: str = ""

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
                raise InputError(
                    f"The traits {other!r} and {given!r} were asked for, and both are called "
                    f"{contrast.name!r}. Name one of them, or rename a folder or the one above."
                )
            sets[contrast.name] = contrast
        return sets

    @property
    def constructions(self) -> dict[str, list[ContrastSet]]:
        """The further constructions of each trait that has some, by its full name."""
        given = {load_contrast(name).name: name for name in self.traits or available()}
        found = {
            full: [load_contrast(name, way) for way in constructions(name)]
            for full, name in given.items()
        }
        return {full: sets for full, sets in found.items() if sets}

    @property
    def chats(self) -> dict[str, ChatSet]:
        """The chat pairs of each trait that has some, by its full name."""
        given = {load_contrast(name).name: name for name in self.traits or available()}
        return {full: load_chats(name) for full, name in given.items() if has_chats(name)}

    @property
    def names(self) -> list[str]:
        """Full names of the traits, each once."""
        return list(self.contrasts)

    @property
    def with_placebos(self) -> bool:
        """Whether placebo sets are captured."""
        return self.placebos or self.full

    @property
    def full(self) -> bool:
        """Whether the vectors are evaluated in full."""
        return self.evaluation == "full"


@dataclass(frozen=True)
class Prompts:
    """What is asked, and which kinds of prompt choose and report.

    `file` is a JSON file of prompts, or a set of the hub; without it the shipped `sets`. Of a
    `split`, and `limit` of them. A prompt's label `bias` is its kind: kinds in `held_out` are
    reported on (none named: every second), the rest choose; at those in `without_bias` nothing is
    at stake, and those in `left_out` are not asked.
    """

    file: str = ""
    sets: tuple[str, ...] = ()
    split: str = ""
    limit: int = 0
    held_out: tuple[str, ...] = ()
    without_bias: tuple[str, ...] = ("neutral",)
    left_out: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files of prompts."""
        if self.file:
            return [Path(self.file)]
        return [datasets("prompts", name) for name in self.sets]

    @property
    def on_hub(self) -> bool:
        """Whether the prompts are a set of the hub."""
        name = Path(self.file)
        return self.file.count("/") == 1 and not name.suffix and not name.exists()


@dataclass(frozen=True)
class Answers:
    """How arms answer, and who says which answers exploit.

    The organism (and `habits`) answers each prompt `samples` times at `temperature`. `labels` is a
    file of labels, a TOML file of rules or module:function (none: the experiment's labeller).
    `judge` is served at the address `judge_at`, where it rates the answers too.

    Answers from elsewhere: `given` are files, the organism's or arm=file; at the address `server`
    the bare model is `served_model`, with adapters `served_adapter` (the organism's, or arm=name).
    Arms that are in neither answer here.
    """

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 80
    labels: str = ""
    judge: str = ""
    judge_at: str = ""
    given: tuple[str, ...] = ()
    server: str = ""
    served_model: str = ""
    served_adapter: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decomposition:
    """Two traits that are expected to part, or to rise together, with the sign of each.

    They are held against exploiting, or of two `kinds` of prompt against which one it is.
    `residualised`: each without what the other explains.

    >>> Decomposition("a without b", "mine/a", "mine/b", (1, -1)).kinds
    ()
    """

    name: str
    first: str
    second: str
    signs: tuple[int, ...]
    kinds: tuple[str, ...] = ()
    residualised: bool = False


@dataclass(frozen=True)
class Hypothesis:
    """The primary hypothesis in words, and what it names.

    Traits (`primary`, none: all of the run), shares of the `depth` between which a layer is
    chosen, `alpha`; `smallest` is the smallest AUROC of interest, and `decompositions` are pairs
    of traits with an expectation. `pooling` (a `tk.Pooling` in words, such as "top_k(k=5)") makes
    of a response's tokens the score that detection is about; shifts stay means. By any but the
    mean a layer is chosen among those kept in full: random directions are read there, and pooled
    alike.
    """

    text: str = GENERAL
    primary: tuple[str, ...] = ()
    pooling: str = MEAN
    depth: tuple[float, ...] = (0.2, 0.75)
    alpha: float = 0.05
    smallest: float = 0.6
    decompositions: tuple[Decomposition, ...] = ()

    @property
    def stated(self) -> str:
        """Its text, with the pooling that it is about."""
        if self.pooling == MEAN:
            return self.text
        return self.text.replace(MEAN_COSINE, f"cosine pooled by {self.pooling}")


@dataclass(frozen=True)
class Null:
    """What every interval and p is drawn from: sets of `directions`, `repetitions`, the `seed`."""

    directions: int = 500
    repetitions: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """The settings of one audit, by group; `preset` is what its folder is called."""

    preset: str
    model: Model
    adapters: Adapters
    vectors: Vectors = field(default_factory=Vectors)
    prompts: Prompts = field(default_factory=Prompts)
    answers: Answers = field(default_factory=Answers)
    hypothesis: Hypothesis = field(default_factory=Hypothesis)
    null: Null = field(default_factory=Null)

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms by name."""
        return {arm.name: arm for arm in self.adapters.arms}

    def of_role(self, role: str) -> Arm | None:
        """The arm of a role that one arm has, or None."""
        return next((arm for arm in self.adapters.arms if arm.role == role), None)

    @property
    def primary(self) -> list[str]:
        """The traits that the hypothesis names, or all of the run."""
        return list(self.hypothesis.primary or self.vectors.names)


def groups() -> dict[str, Any]:
    """The kind of each group by its name.

    >>> list(groups())[:2]
    ['model', 'adapters']
    """
    kinds = typing.get_type_hints(Settings)
    return {name: kind for name, kind in kinds.items() if dataclasses.is_dataclass(kind)}


def places() -> dict[str, tuple[str, str]]:
    """Each single value by the name that options have for it: its group and its name there.

    >>> places()["limit"], places()["control"]
    (('prompts', 'limit'), ('adapters', 'matched'))
    """
    every = [(g, f.name) for g, kind in groups().items() for f in dataclasses.fields(kind)]
    renamed = {place: option for option, place in OPTIONS.items()}
    return {renamed.get(place, place[1]): place for place in every}
