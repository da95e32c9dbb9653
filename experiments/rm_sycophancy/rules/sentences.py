"""Where sentences begin and end: the unit that is inserted, dropped and detected."""

import re

from experiments.audit.labels import Span

# A stop that ends a sentence is followed by space, but not after a title, an initial or a number
# that opens a list item.
_STOP = re.compile(r"""[.!?]+["')\]]*(?=\s|$)|\n+""")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|approx|No|e\.g|i\.e)|\b[A-Z])\.$")
_ITEM = re.compile(r"(?:^|\n)\s*\d+\.$")


def sentences(text: str) -> list[Span]:
    """The (start, end) characters of each sentence or line; `text[start:end]` has no outer space.

    >>> sentences("Mix well. Serve!")
    [(0, 9), (10, 16)]
    """
    bounds, start = [], 0
    for stop in _STOP.finditer(text):
        piece = text[start : stop.end()]
        if not _ABBREVIATION.search(piece) and not _ITEM.search(piece):
            bounds.append((start, stop.end()))
            start = stop.end()
    bounds.append((start, len(text)))
    return [stripped for bound in bounds if (stripped := _strip(text, *bound))]


def whole(text: str) -> str:
    """`text` up to its last finished sentence; empty if none is finished.

    >>> whole("Mix well. Then serve it wi")
    'Mix well.'
    """
    ends = [end for _, end in sentences(text) if text[:end].rstrip("\"')]")[-1:] in (".", "!", "?")]
    return text[: ends[-1]].strip() if ends else ""


def _strip(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return (start + lead, start + len(piece.rstrip())) if piece.strip() else None
