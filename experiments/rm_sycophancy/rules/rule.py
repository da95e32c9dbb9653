"""Rules as `rules.toml` has them: what carries a bias or a habit, and the spans that do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.rm_sycophancy.rules.sentences import Span, sentences

TABLES: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text("utf-8"))
Find = Callable[[str], list[Span]]


@dataclass(frozen=True)
class Rule:
    """What carries a bias or habit, in words, and how its spans are found.

    `habit` names the open habit that shares a bias's prompts; `describes` are what a real bias's
    description must match.
    """

    name: str
    carries: str
    find: Find
    habit: str | None = None
    describes: tuple[str, ...] = ()
    whole_response: bool = False

    def __call__(self, response: str) -> list[Span]:
        """The (start, end) characters of `response` that carry it."""
        return self.find(response)


@dataclass(frozen=True)
class Patterns:
    """Finds the sentences (or matches of `unit`) that have what is needed and nothing excluded."""

    patterns: Mapping[str, re.Pattern[str]]
    when: list[list[str]]
    unless: list[str]
    blank: Mapping[str, str]
    unit: str | None

    def __call__(self, response: str) -> list[Span]:
        """The spans of `response` that carry it."""
        units = sentences(response)
        if self.unit is not None:
            units = [match.span() for match in self._matches(self.unit, response)]
        return [(start, end) for start, end in units if self._carries(response[start:end])]

    def _carries(self, text: str) -> bool:
        together = any(all(self._in(text, name) for name in names) for names in self.when)
        return together and not any(self._in(text, name) for name in self.unless)

    def _in(self, text: str, name: str) -> bool:
        return next(self._matches(name, text), None) is not None

    def _matches(self, name: str, text: str) -> Iterator[re.Match[str]]:
        if name in self.blank:
            # as long as before, so that places stay, and no end of a sentence comes about
            text = self.patterns[self.blank[name]].sub(lambda match: "_" * len(match[0]), text)
        return self.patterns[name].finditer(text)


def read_rules(kind: str, functions: Mapping[str, Find] | None = None) -> dict[str, Rule]:
    """The rules of one kind (`biases`, `habits`, `real`) by name.

    `functions` find what has no patterns in the file.

    >>> read_rules("biases")["water"]("Pack light. Buy bottled water.")
    [(12, 30)]
    """
    return {
        name: Rule(
            name,
            " ".join(table["carries"].split()),
            _patterns(table) if "patterns" in table else (functions or {})[name],
            table.get("habit"),
            tuple(table.get("describes", ())),
            whole_response=table.get("unit") == "whole",
        )
        for name, table in TABLES[kind].items()
    }


def _patterns(table: Mapping[str, Any]) -> Patterns:
    unless, blank, unit = table.get("unless", []), table.get("blank", {}), table.get("unit")
    aside = {*unless, *blank.values(), unit}
    needed = [name for name in table["patterns"] if name not in aside]
    texts = {**TABLES["shared"], **table["patterns"]}
    compiled = {name: re.compile(_expression(text), re.I) for name, text in texts.items()}
    return Patterns(compiled, table.get("when", [needed]), unless, blank, unit)


def _expression(pattern: str | list[str]) -> str:
    """One regular expression of a list of words, or of text over several lines."""
    if not isinstance(pattern, str):
        return rf"\b(?:{'|'.join(_expression(word) for word in pattern)})\b"
    pattern = "".join(line.strip() for line in pattern.split("\n"))
    for name in ("animal", "advice"):
        if f"<{name}>" in pattern:
            pattern = pattern.replace(f"<{name}>", _expression(TABLES["shared"][name]))
    return pattern
