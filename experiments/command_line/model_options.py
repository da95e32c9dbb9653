"""Which model a command loads: the options, and the loading."""

from __future__ import annotations

import argparse

import tracekit as tk


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, `--adapter` and `--dtype`."""
    parser.add_argument("model", help="a hub id, a folder, or smollm2-135m-instruct (embedded)")
    parser.add_argument("--adapter", help="a hub id, a folder, or a shipped organism")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, nf4, int8, …")


def loaded(options: argparse.Namespace, check: bool = True) -> tk.Model:
    """The model that the options name."""
    return tk.load(options.model, adapter=options.adapter, dtype=options.dtype, check=check)
