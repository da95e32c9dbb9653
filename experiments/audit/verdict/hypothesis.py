"""The hypothesis that was fixed before the run: its text, its hash, and what it names."""

from __future__ import annotations

import hashlib


def text_hash(text: str) -> str:
    """The first 16 digits of the text's SHA-256, saved and printed with the result.

    >>> text_hash("a")
    'ca978112ca1bbdca'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]
