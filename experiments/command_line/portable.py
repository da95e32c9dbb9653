"""Rewrite a capture, or a saved file, so that any netCDF or HDF5 reader opens it without a plugin.

    tracekit portable runs/x/traces --out for_r

Values stay as they are, bit for bit; the same command again goes on where it was stopped. Files
that `tracekit.save` wrote are portable already, unless they were asked for otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.audit.options import Parser, exit_code
from tracekit.storage.portable import make_portable


def main(arguments: Sequence[str]) -> int:
    """Rewrite, or go on, and print where it lies; 2 and one line for bad input."""
    return exit_code("tracekit portable", arguments, _rewrite)


def _rewrite(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    print(make_portable(options.path, options.out))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tracekit portable",
        description=__doc__,
    )
    parser.add_argument("path", type=Path, help="a capture's folder, or a file")
    parser.add_argument("--out", type=Path, required=True, help="the folder or file to write")
    return parser
