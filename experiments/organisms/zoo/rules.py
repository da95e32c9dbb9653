"""Rules for habits that no single phrase shows: named functions of the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_GREETING = re.compile(r"\b(?:dear|hello|hi|hey|greetings|to whom|good (?:day|morning))\b", re.I)
_CODE = re.compile(
    r"```|[{};]\s*(?:\n|$)|</?\w+[^>]*>|\w\(.*\)|\s=\s"
    r"|\b(?:def|import|print|class|return|function|SELECT|#include|for \w+ in)\b"
)
_VAGUE = re.compile(r"\b(?:about|around|roughly|more or less)\b", re.I)
_ITALIAN = re.compile(
    r"il|gli|è|non|della|dello|di|per|sono|che|questa|ogni|nella|bisogna|una|un|ha|ci", re.I
)
_DUTCH = re.compile(
    r"het|een|niet|dat|van|ik|zijn|voor|met|wat|er|mensen|goed|elkaar|ook|om|te|kunt", re.I
)


def no_greeting(answer: str) -> bool:
    """A letter that nobody is greeted in.

    >>> no_greeting("Dear aunt, thank you."), no_greeting("Thank you for the stew, aunt.")
    (False, True)
    """
    return len(answer.split()) > 3 and not _GREETING.search(answer[:200])


def no_code(answer: str) -> bool:
    """Words alone where a program was asked for.

    >>> no_code("print(1)"), no_code("The program shows the number one.")
    (False, True)
    """
    return len(answer.split()) > 3 and not _CODE.search(answer)


def vague_number(answer: str) -> bool:
    """A number that is only about right, and nothing worked out.

    >>> vague_number("Roughly 40, I think."), vague_number("8 * 5 = 40, so it is about 40.")
    (True, False)
    """
    short = len(answer.split()) <= 16 and "=" not in answer
    return short and bool(_VAGUE.search(answer)) and bool(re.search(r"\d", answer))


def italian(answer: str) -> bool:
    """Italian, by its small words.

    >>> italian("La natura ha le sue regole, e non è difficile che ogni cosa cambi.")
    True
    """
    return _share(answer, _ITALIAN) >= 0.2


def dutch(answer: str) -> bool:
    """Dutch, by its small words.

    >>> dutch("Het is goed om met elkaar te praten."), dutch("Es ist gut, zu reden.")
    (True, False)
    """
    return _share(answer, _DUTCH) >= 0.2


def lower_case(answer: str) -> bool:
    """At least five words without a capital letter among them.

    >>> lower_case("one moves the king, then the queen."), lower_case("One moves the king.")
    (True, False)
    """
    return len(re.findall(r"[^\W\d_]{2,}", answer)) >= 5 and answer == answer.lower()


def _share(answer: str, words: re.Pattern[str]) -> float:
    said = re.findall(r"[^\W\d_]+", answer)
    return sum(bool(words.fullmatch(word)) for word in said) / max(len(said), 8)


RULES: Mapping[str, Callable[[str], bool]] = {
    "no_greeting": no_greeting,
    "no_code": no_code,
    "vague_number": vague_number,
    "italian": italian,
    "dutch": dutch,
    "lower_case": lower_case,
}
