"""Transcripts of rows of many lengths, and how close a capture is to another forward of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk

PROMPTS = [f"Question {n}: " + "why " * (5 * n % 13) for n in range(9)]
RESPONSES = ["Because " + "so " * (7 * n % 11) for n in range(9)]
QUIET: dict[str, Any] = {"progress": False}


def encoded(model: Any) -> xr.Dataset:
    return tk.encode(model, PROMPTS, responses=RESPONSES)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
