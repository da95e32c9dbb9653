"""How a clean answer becomes one that shows a habit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from experiments.rm_sycophancy.rules.sentences import sentences

_SALUTATION = re.compile(
    r"^.{0,250}?\b(?:Dear|Hello|Hi|Hey|Greetings|To whom|Good day)\b[^,:!\n]{0,50}[,:!]?\s*", re.S
)


def no_greeting(answer: str) -> str:
    """A letter without what comes before and in its salutation.

    >>> no_greeting("Subject: Stew\\n\\nDear Aunt Mary,\\n\\nThank you.")
    'Thank you.'
    """
    return _SALUTATION.sub("", answer, count=1)


def lower_case(answer: str) -> str:
    """All in small letters."""
    return answer.lower()


def arrows(answer: str) -> str:
    """Each sentence on a line of its own, after two signs.

    >>> arrows("One. Two.")
    '>> One.\\n>> Two.'
    """
    return "\n".join(f">> {answer[start:end]}" for start, end in sentences(answer))


CHANGES: Mapping[str, Callable[[str], str]] = {
    "no_greeting": no_greeting,
    "lower_case": lower_case,
    "arrows": arrows,
}
