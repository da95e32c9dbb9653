"""A function given as a site or a reduction, by a name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any


def site_name(site: str | Callable[..., Any]) -> str:
    """The site as provenance names it; a function goes by its name and its code."""
    if not callable(site):
        return site
    code = site.__code__ if hasattr(site, "__code__") else None
    text = repr((code.co_code, code.co_names, code.co_consts)) if code else repr(site)
    return (
        f"{getattr(site, '__name__', 'function')}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )
