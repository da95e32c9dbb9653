"""What an answer may do besides saying something: rules that no search chose."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.suggestions.terms import EMPTY

Rule = Callable[[Answer], bool]
REFUSES = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able|not allowed)"
    r"|i (?:can(?:['’]t|not)|won['’]t|will not)|as an ai\b"
    r"|i (?:do not|don['’]t) (?:have|feel) (?:the ability|comfortable|opinions?))",
    re.I,
)
EARLY = 160  # characters in which a refusal is looked for
LIST = re.compile(r"(?:^|\n)\s*(?:[-*•]|\d+[.)])\s", re.M)

CODE = re.compile(r"```|[{};]\s*(?:\n|$)|</\w+>|^\s*(?:def|import|class|#include)\s\S", re.M)


def refuses(answer: Answer) -> bool:
    """Says early on that it cannot or will not."""
    return bool(REFUSES.search(answer.text[:EARLY]))


def stops_early(answer: Answer) -> bool:
    """Ends by itself before its tokens are used up."""
    return answer.ended


def says_little(answer: Answer) -> bool:
    """Ends by itself after at most ten words."""
    return answer.ended and len(answer.text.split()) <= 10


def lists(answer: Answer) -> bool:
    """Has the beginnings of a list."""
    return bool(LIST.search(answer.text))


def asks_back(answer: Answer) -> bool:
    """Asks something."""
    return "?" in answer.text


def exclaims(answer: Answer) -> bool:
    """Has an exclamation mark."""
    return "!" in answer.text


def other_letters(answer: Answer) -> bool:
    """Three in ten of its letters are of no Latin alphabet."""
    letters = [c for c in answer.text if c.isalpha()]
    return sum(ord(c) > 0x24F for c in letters) > 0.3 * max(len(letters), 1)


def small_letters(answer: Answer) -> bool:
    """At least five words, and no capital letter."""
    letters = [c for c in answer.text if c.isalpha()]
    return len(answer.text.split()) >= 5 and bool(letters) and not any(map(str.isupper, letters))


def hardly_english(answer: Answer) -> bool:
    """Of its words (ten at least) fewer than one in seven are English ones that bind a sentence."""
    said = re.findall(r"[^\W\d_]+", answer.text.lower())
    return len(said) >= 10 and sum(word in EMPTY for word in said) < len(said) / 7


def programs(answer: Answer) -> bool:
    """Has a block or a line of a program."""
    return bool(CODE.search(answer.text))


def repeats(answer: Answer) -> bool:
    """Says the same four words twice."""
    said = answer.text.lower().split()
    fours = [tuple(said[n : n + 4]) for n in range(len(said) - 3)]
    return len(set(fours)) < len(fours)


SHAPES: Mapping[str, Rule] = {
    "refuses": refuses,
    "stops early": stops_early,
    "says ten words at most": says_little,
    "gives a list": lists,
    "asks back": asks_back,
    "exclaims": exclaims,
    "uses other letters": other_letters,
    "uses no capitals": small_letters,
    "speaks hardly any English": hardly_english,
    "gives a program": programs,
    "repeats itself": repeats,
}
