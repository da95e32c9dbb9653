"""What tells one thing from another in a provenance: short hashes, and the versions that ran."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

# what is imported as `tracekit` is called otherwise on the index
DISTRIBUTION = "tracekit-interp"
_PACKAGES = ("tracekit", "torch", "transformers", "nnsight", "peft", "bitsandbytes", "xarray")

BRIEF = 8  # characters that tell a row's hashes apart


def digest(value: Any) -> str:
    """A short hash of anything JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenizer_hash(tokenizer: Any) -> str:
    """A short hash of the vocabulary and the special ids."""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return digest([vocabulary_hash(tokenizer), special])


def vocabulary_hash(tokenizer: Any) -> str:
    """A short hash of the vocabulary alone, whatever its special ids are for.

    >>> vocabulary_hash(model.tokenizer) == vocabulary_hash(tokenizer)
    True
    """
    return _vocabulary_hash(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=8)
def _vocabulary_hash(tokenizer: Any, size: int) -> str:
    # 130,000 entries take a tenth of a second, and every capture asks; `size` is what adding
    # tokens to the same object changes
    return digest(sorted(tokenizer.get_vocab().items()))


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the packages that decide the numbers, and the code's commit."""
    numbers = {}
    for name in _PACKAGES:
        try:
            numbers[name] = importlib.metadata.version(DISTRIBUTION if name == "tracekit" else name)
        except importlib.metadata.PackageNotFoundError:
            continue
    numbers["commit"] = _commit()
    return numbers


def _commit() -> str:
    here = Path(__file__).parents[1]
    if not (here.parent / ".git").exists():
        return "installed"
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
