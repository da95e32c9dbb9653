"""Prove that a model's names mean what they say, with an adapter or without.

tracekit check smollm2-135m-instruct --adapter ten_biases
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tracekit as tk
from experiments.audit.options import Parser, exit_code
from experiments.command_line.model_options import add_model, loaded
from tracekit.model.record import origin


def main(arguments: Sequence[str]) -> int:
    """Load, check, and say what was proved; 2 and one line where something does not hold."""
    return exit_code("tracekit check", arguments, _check)


def _check(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    model = loaded(options, check=False)
    tk.check(model)
    print("\n".join(lines(model)))


def lines(model: tk.Model) -> list[str]:
    """What was loaded and what holds of it, a line each."""
    about = origin(model)
    return [
        f"{about.name}: {len(model.layers)} blocks, {about.dtype}, weights {about.weights}",
        "names, shapes, positions, padding and log-probabilities: as promised",
        *[f"adapter {name}: acts, and leaves no trace" for name in about.adapters.values()],
        *[f"not allowed here: {what} ({why})" for what, why in sorted(about.refused.items())],
    ]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tracekit check",
        description=__doc__,
    )
    add_model(parser)
    return parser
