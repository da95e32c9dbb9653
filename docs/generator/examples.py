"""Docstrings as Markdown: examples become code blocks, so that `>>>` is no quotation."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts a fence around each example, and a word before the errors."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change an object's docstring, once it is read."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Errors:", "**Errors:**", text, flags=re.MULTILINE)
