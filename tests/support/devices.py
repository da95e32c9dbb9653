"""Values of two devices beside one another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file


def gap(found: Any, theirs: Any) -> float:
    """The largest difference of a token's values, over the token's norm."""
    found, theirs = np.asarray(found), np.asarray(theirs)
    assert np.array_equal(np.isnan(found), np.isnan(theirs))
    norms = np.linalg.norm(theirs, axis=-1)
    return float(np.nanmax(np.linalg.norm(found - theirs, axis=-1) / norms))


def unlike(values: Any) -> np.ndarray:
    """The same values, but for one."""
    spoilt = np.array(values)
    place = tuple(np.argwhere(np.isfinite(spoilt))[7])
    spoilt[place] += 10
    return spoilt


def in_16_bits(lora: Path, folder: Path) -> Path:
    """As the reference holds it beside 4 bits; what is stored in float32 is held so here."""
    shutil.copytree(lora, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    halves = {name: value.bfloat16() for name, value in weights.items()}
    save_file(halves, folder / "adapter_model.safetensors")
    return folder
