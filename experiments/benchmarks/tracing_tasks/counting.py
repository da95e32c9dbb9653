"""Code lines of a snippet, by one rule for every library."""

from __future__ import annotations

import ast
from pathlib import Path

NO_CODE = (ast.Import, ast.ImportFrom)


def counted(path: Path) -> dict[str, int]:
    """By function, the lines of its body that hold code, as formatted to 100 columns.

    Blank lines, comments, docstrings and imports are not counted, nor is the `def` itself, which
    stands for the file; the model is loaded elsewhere.

    >>> sorted(counted(Path(__file__)))
    ['_lines', 'counted']
    """
    text = path.read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: len(_lines(node, text.splitlines())) for node in functions}


def _lines(function: ast.FunctionDef, text: list[str]) -> list[str]:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return []
    left_out = {
        line
        for node in ast.walk(function)
        if isinstance(node, NO_CODE)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbers = range(body[0].lineno, (function.end_lineno or 0) + 1)
    lines = [text[n - 1].strip() for n in numbers if n not in left_out]
    return [line for line in lines if line and not line.startswith("#")]
