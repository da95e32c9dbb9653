"""Whether a checkpoint holds all weights of its architecture: transformers draws others at random.

Tied weights count as there. transformers only logs what it drew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

from tracekit.errors import InputError


@contextlib.contextmanager
def noting_missing() -> Iterator[set[str]]:
    """The weights that a checkpoint loaded inside did not have (tied ones are there)."""
    missing: set[str] = set()
    kind, inherited = PreTrainedModel, PreTrainedModel.__dict__["from_pretrained"]

    def noting(cls: type[PreTrainedModel], *inputs: Any, **options: Any) -> Any:
        asked = options.pop("output_loading_info", False)
        # transformers' pipeline hands it to a vision-language model's class, which has no such
        options.pop("code_revision", None)
        module, info = inherited.__func__(cls, *inputs, output_loading_info=True, **options)
        missing.update(info["missing_keys"])
        return (module, info) if asked else module

    kind.from_pretrained = classmethod(noting)  # type: ignore[assignment]
    try:
        yield missing
    finally:
        kind.from_pretrained = inherited  # type: ignore[method-assign]


def refuse_missing(name: str, missing: set[str]) -> None:
    """Raise `ValueError` for weights that were drawn at random."""
    if missing:
        raise InputError(
            f"The checkpoint {name!r} lacks {len(missing)} of the weights that its architecture "
            f"has, such as {', '.join(sorted(missing)[:3])}: they would be drawn at random. "
            "Use a whole checkpoint, or the architecture that these weights are of."
        )
