"""The hash of the hypothesis that was fixed before the run: saved and printed with the result."""

from __future__ import annotations

import hashlib


def text_hash(text: str) -> str:
    """The first 16 digits of the text's SHA-256, by which a reader checks its wording.

    >>> text_hash("a")
    'ca978112ca1bbdca'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]
