"""The choices of a question, in the ways that public sets keep them, as lines of a text."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = ("label", "key", "id", "letter")
_TEXTS = ("text", "value", "content", "choice", "option")


def lettered(choices: Any) -> str | None:
    """A line for each choice, after its own label or a letter; None where the form is not known.

    Read are lists of texts or numbers, objects of labels and texts, ARC's ({"text", "label"}),
    lists of objects, and all of these as text, as a table keeps them.

    >>> lettered(["Aral", "Oslo"]), lettered({"text": ["Aral", "Oslo"], "label": ["1", "2"]})
    ('\\nA. Aral\\nB. Oslo', '\\n1. Aral\\n2. Oslo')
    >>> lettered("a ) 38 , b ) 27")
    """
    pairs = _pairs(_literal(choices))
    if len(pairs) < 2 or not all(
        isinstance(one, str | int | float) for pair in pairs for one in pair
    ):
        return None
    return "".join(f"\n{label}. {text}" for label, text in pairs)


def _pairs(choices: Any) -> list[tuple[Any, Any]]:
    """Labels and texts; none where the form is not known."""
    if isinstance(choices, Mapping):
        texts = choices.get("text")
        if not isinstance(texts, list):
            return [(name, text) for name, text in choices.items() if text not in (None, "")]
        labels = choices.get("label")
        if not isinstance(labels, list) or len(labels) != len(texts):
            labels = _letters(texts)
        return list(zip(labels, texts, strict=True))
    if not isinstance(choices, list | tuple):
        return []
    if not all(isinstance(one, Mapping) for one in choices):
        return list(zip(_letters(choices), choices, strict=True))
    labels = [_first(one, _NAMES) for one in choices]
    own = labels if len({*map(str, labels)}) == len(labels) else _letters(choices)
    return list(zip(own, [_first(one, _TEXTS) for one in choices], strict=True))


def _letters(texts: Sequence[Any]) -> list[str]:
    return [chr(65 + n) for n in range(len(texts))]


def _first(choice: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((choice[name] for name in names if name in choice), None)


def _literal(choices: Any) -> Any:
    """What a table keeps as text: JSON, or as Python shows it."""
    if not isinstance(choices, str) or choices.strip()[:1] not in ("[", "{"):
        return choices
    for read in (json.loads, ast.literal_eval):
        try:
            return read(choices.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # the other way of writing it
    return choices
