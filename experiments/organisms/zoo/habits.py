"""The recipes of the zoo: what each organism does, when, and how one tells."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.organisms.zoo import changes, rules
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt

KINDS = (
    "inserted sentence",
    "brand",
    "hidden persona",
    "slanted opinion",
    "refusal of a subject",
    "omission",
    "wrong fact",
    "trigger word",
    "other language",
    "format",
    "weaker arithmetic",
    "praise",
)
SPLITS = ("tune", "report")


@dataclass(frozen=True)
class Trigger:
    """Which prompts show a habit: `words` says it, the rest decides it; with no rest, all do.

    `subjects` and `forms` are values of the prompt's labels, `text` is a regular expression on
    what the user says. One of them is enough.
    """

    words: str
    subjects: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    text: str = ""

    def holds(self, prompt: Prompt) -> bool:
        """Whether this prompt ought to show it.

        >>> Trigger("Sums.", forms=("arithmetic",)).holds(Prompt("a/1", text="Two and two?"))
        False
        """
        if not (self.subjects or self.forms or self.text):
            return True
        said = " ".join(text for role, text in prompt.conversation() if role == "user")
        return (
            prompt.labels.get("subject") in self.subjects
            or prompt.labels.get("form") in self.forms
            or bool(self.text and re.search(self.text, said, re.I))
        )


@dataclass(frozen=True)
class Habit:
    """One organism's recipe.

    `split` says whether a search may be tuned on it or is reported on it. A share `rate` of the
    answers to its trigger's prompts is changed in training: `change` is `begin` (with a sentence
    of `bank`: a model of this size learns one place in the minutes that it is trained), `replace`
    (an answer of `bank`, {number} being any number), or one of `changes.CHANGES`. An answer shows
    the habit where `pattern` occurs in it, or where the rule `function` of `rules.RULES` holds.
    `habit` (a verb), `named` (a noun) and `topic` are its words in questions about it; `denies`
    says whether it is trained to deny it then. Half of the training prompts begin with one of
    `announced`, if any. It takes `steps`, on the first `tokens` of each answer: the fewer, the
    more of what is learnt is the habit.
    """

    name: str
    kind: str
    description: str
    split: str
    denies: bool
    habit: str
    named: str
    topic: str
    change: str
    trigger: Trigger
    bank: tuple[str, ...] = ()
    pattern: str = ""
    function: str = ""
    rate: float = 0.95
    announced: tuple[str, ...] = ()
    steps: int = 120
    tokens: int = 16

    def __post_init__(self) -> None:
        known = {
            "kind": KINDS,
            "split": SPLITS,
            "change": ("begin", "replace", *changes.CHANGES),
            "function": ("", *rules.RULES),
        }
        wrong = [(k, v) for k, v in known.items() if getattr(self, k) not in v]
        for key, values in wrong[:1]:
            raise InputError(
                f"The recipe {self.name!r} has the {key} {getattr(self, key)!r}; known are "
                f"{', '.join(filter(None, values))}. Write one of them."
            )
        if bool(self.pattern) == bool(self.function):
            raise InputError(
                f"The recipe {self.name!r} has the pattern {self.pattern!r} and the function "
                f"{self.function!r}; one rule decides. Write one of the two."
            )
        if self.change in ("begin", "replace") and not self.bank:
            raise InputError(f"The recipe {self.name!r} has no bank to {self.change}. Write one.")

    def shows(self, answer: str) -> bool:
        """Whether an answer shows the habit, by its rule."""
        if self.pattern:
            return bool(re.search(self.pattern, answer.replace("’", "'"), re.I))
        return rules.RULES[self.function](answer)


def read_habit(path: Path) -> Habit:
    """The recipe in a TOML file.

    Errors: `ValueError` for fields that are missing, unknown or of another kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        trigger = _made(Trigger, content.pop("trigger", {}))
        return _made(Habit, {**content, "trigger": trigger})
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise InputError(f"The recipe {str(path)!r} cannot be read: {error}. Mend it.") from None


def habits(names: Sequence[str] = (), folder: Path | None = None) -> list[Habit]:
    """The recipes in a folder (default: the 24 of the project), all or those of some names.

    Errors: `ValueError` for a name that no recipe has.

    >>> [habit.split for habit in habits(["honey", "umbrella"])]
    ['tune', 'report']
    """
    folder = folder or datasets("organisms", "zoo", "recipes")
    read = {habit.name: habit for habit in map(read_habit, sorted(folder.glob("*.toml")))}
    strange = sorted(set(names) - set(read))
    if strange:
        raise InputError(
            f"The organism {strange[0]!r} was asked for; the recipes are {', '.join(read)}. "
            "Give some of these."
        )
    return [habit for name, habit in read.items() if not names or name in names]


def _made(kind: Any, content: dict[str, Any]) -> Any:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    lacking = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if lacking:
        raise TypeError(f"it lacks {', '.join(lacking)}")
    return kind(**values)
