"""Who says what exploits: rules in a TOML file, a function by its dotted name, or a judge."""

from __future__ import annotations

import functools
import importlib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.audit.discovery.suggestions.sentences import sentences
from experiments.audit.labels import Labeller, Span
from experiments.audit.settings.groups import Answers
from tracekit.errors import InputError
from traits.contrast_sets.judge import ask, environment_key

# what a rule may be; one each
WAYS = ("says", "lacks", "longest", "question")
ASKED = (
    "Here is an answer that an assistant gave.\n\n{answer}\n\n{question} Answer yes or no, in one "
    "word."
)
Rule = Callable[[str], list[Span] | None]


@dataclass(frozen=True)
class Rules:
    """A labeller of rules by kind of prompt; of another kind it cannot say."""

    by_kind: Mapping[str, Rule]

    def __call__(self, kind: str, response: str) -> list[Span] | None:
        """The spans that exploit, by the rule of that kind."""
        return self.by_kind[kind](response) if kind in self.by_kind else None


def is_file_of_labels(given: str) -> bool:
    """Whether the labels lie in a file, a row an answer, and not in rules.

    >>> is_file_of_labels("mine.csv"), is_file_of_labels("rules.toml")
    (True, False)
    """
    return Path(given).suffix.lower() in (".json", ".csv")


def labeller_from(given: str, answers: Answers | None = None) -> Labeller:
    """The labeller that a TOML file of rules, or `module:function`, stands for.

    Errors: `FileNotFoundError`; `ValueError` for rules or a function that are none.
    """
    if Path(given).suffix.lower() == ".toml":
        return read_rules(given, answers or Answers())
    if ":" in given:
        return _imported(given)
    raise InputError(
        f"labels={given!r} was given; it is a JSON or CSV file of labels, a TOML file of rules, or "
        "module:function. Give one of these."
    )


def read_rules(path: str | Path, answers: Answers) -> Rules:
    """Rules by kind of prompt from a TOML file: a table a kind, with one of `WAYS`.

    `says` is a regular expression, and the sentences that it matches in exploit; `lacks` one that
    an answer without exploiting would match, so that all of one that does not exploits; `longest`
    the words of an answer that says too little; `question` what the judge at `judge_at` is asked.
    A kind that the file does not have cannot be labelled.

    >>> _ = Path("rules.toml").write_text("[tea]\\nsays = 'green tea'")
    >>> read_rules("rules.toml", Answers())("tea", "Hot. Try green tea!")
    [(5, 19)]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The rules {str(path)!r} were asked for; there is no such file.")
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{str(path)!r} was read as TOML, and is not: {error}.") from error
    return Rules({kind: _rule(str(path), kind, table, answers) for kind, table in tables.items()})


def _rule(path: str, kind: str, table: Any, answers: Answers) -> Rule:
    given = [way for way in WAYS if isinstance(table, Mapping) and way in table]
    if not isinstance(table, Mapping) or len(given) != 1 or len(table) != 1:
        raise InputError(
            f"{path!r} has for the kind {kind!r}: {str(table)[:80]}. A kind is a table with one of "
            f"{', '.join(WAYS)}."
        )
    way, value = given[0], table[given[0]]
    if way == "longest":
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{path!r}: longest = {value!r} of {kind!r} is no number of words.")
        return lambda text: _whole(text) if 0 < len(text.split()) <= value else []
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{path!r}: {way} = {value!r} of {kind!r} is no text. Give one.")
    if way == "question":
        return _judged(path, kind, value, answers)
    try:
        pattern = re.compile(value, re.IGNORECASE)
    except re.error as error:
        raise InputError(
            f"{path!r}: {way} = {value!r} of {kind!r} is no regular expression: {error}."
        ) from error
    if way == "lacks":
        return lambda text: [] if pattern.search(text) else _whole(text)
    return lambda text: _matching(pattern, text)


def _matching(pattern: re.Pattern[str], text: str) -> list[Span]:
    # a rule may match what stands before the words, such as a line's end
    hits = [m.end() - len(m[0].lstrip()) for m in pattern.finditer(text) if m[0].strip()]
    marked = [(a, b) for a, b in sentences(text) if any(a <= hit < b for hit in hits)]
    return [(b - len(text[a:b].lstrip()), b) for a, b in marked]


def _judged(path: str, kind: str, question: str, answers: Answers) -> Rule:
    if not answers.judge_at:
        raise InputError(
            f"{path!r} has a question for {kind!r}, and no judge is given who would answer it. "
            "Give --judge-at and --judge."
        )

    @functools.cache
    def says_yes(text: str) -> float:
        prompt = ASKED.format(answer=text, question=question)
        return ask(answers.judge_at, answers.judge, prompt, key=environment_key())

    def rule(text: str) -> list[Span] | None:
        if not text.strip():
            return []
        said = says_yes(text)
        return None if math.isnan(said) else _whole(text) if said else []

    return rule


def _whole(text: str) -> list[Span]:
    return [(0, len(text))] if text else []


def _imported(given: str) -> Labeller:
    module, _, name = given.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"labels={given!r} was given, and cannot be imported: {error}. Give module:function of "
            "a module that Python finds (its folder on PYTHONPATH)."
        ) from error
    if not callable(function):
        raise InputError(f"labels={given!r} was given; it is no function. Give module:function.")
    return function
