"""What a Python function says: its source, found, proved to be what runs, and normalised."""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import types
from collections.abc import Iterator
from typing import Any

from tracekit.errors import InputError

Code = types.CodeType
# what neither computes nor differs between two Python versions' trees
SILENT = ("ctx", "kind", "type_comment", "type_params", "decorator_list", "annotation", "returns")


def function_text(function: types.FunctionType) -> tuple[Any, ast.AST]:
    """The function's parameters and body as nested lists, and its node.

    Layout, comments, annotations, docstrings, decorators and its own name don't count; defaults
    are values, not text.

    Errors: `OSError` where there is no source, where another text is on disk than the one that
    runs, and where two functions of one line cannot be told apart.
    """
    code = function.__code__
    tree, compiled = _source(function)
    alike = [other for other in _nested(compiled) if _same(other, code)]
    if not alike:
        raise OSError("its source was edited since it was loaded, or is not what runs")
    # lines above it may have been edited since
    here = [other for other in alike if other.co_firstlineno == code.co_firstlineno] or alike
    texts = {repr(_function(node)): node for other in here for node in _nodes(tree, other)}
    if len(texts) != 1:
        raise OSError("the line of its source holds several functions or none that fits")
    node = next(iter(texts.values()))
    return _function(node), node


def canonical(node: Any) -> Any:
    """A syntax tree as nested lists of plain values, alike in all Python versions.

    >>> canonical(ast.parse("-  x", mode="eval").body)
    ['UnaryOp', ['op', ['USub']], ['operand', ['Name', ['id', 'x']]]]
    """
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in SILENT}
        if "body" in fields and isinstance(node, ast.FunctionDef | ast.ClassDef):
            fields["body"] = _without_docstring(fields["body"])
        kept = [[k, canonical(v)] for k, v in sorted(fields.items()) if v is not None and v != []]
        return [type(node).__name__, *kept]
    if isinstance(node, list):
        return [canonical(item) for item in node]
    return node if isinstance(node, str) else f"{type(node).__name__} {node!r}"


def globals_of(code: Code) -> set[str]:
    """The global names that a code object reads, nested functions included."""
    names = {
        str(step.argval)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    return names.union(*(globals_of(inner) for inner in _inner(code)))


def attributes_of(node: ast.AST, name: str) -> set[str] | None:
    """Which attributes of a name are read below a node; `None` where the name stands alone."""
    bare, within = 0, set()
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and _is_name(child.value, name):
            within.add(child.attr)
            bare -= 1
        bare += _is_name(child, name)
    return None if bare > 0 else within


def imports_of(node: ast.AST) -> set[str]:
    """The modules that are imported below a node; those of relative imports start with a dot."""
    names: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name for alias in child.names}
        if isinstance(child, ast.ImportFrom):
            names.add("." * child.level + (child.module or ""))
    return names


def _source(function: types.FunctionType) -> tuple[ast.Module, Code]:
    file = function.__code__.co_filename
    # not inspect's own way, which wakes every lazy module on its search for one
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file, function.__globals__))
    try:
        return _compiled(text, file)
    except (SyntaxError, ValueError) as error:
        raise OSError("it has no source to read") from error


@functools.lru_cache(maxsize=16)
def _compiled(text: str, file: str) -> tuple[ast.Module, Code]:
    if not text:
        raise InputError("there is no text")
    # a notebook's cell may await at its top
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return ast.parse(text), compile(text, file, "exec", flags, dont_inherit=True)


def _nodes(tree: ast.Module, code: Code) -> list[ast.AST]:
    nodes = [node for node in ast.walk(tree) if _may_be(node, code)]
    return nodes if len(nodes) == 1 else [node for node in nodes if _covers(node, code)]


def _same(a: Code, b: Code) -> bool:
    # not the line: a type checker's import hook may move it
    plain = [[(type(c), c) for c in code.co_consts if type(c) is not Code] for code in (a, b)]
    parts = ("co_name", "co_code", "co_names", "co_varnames", "co_freevars")
    return plain[0] == plain[1] and all(getattr(a, part) == getattr(b, part) for part in parts)


def _may_be(node: ast.AST, code: Code) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != code.co_name:
        return False
    first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
    return first <= code.co_firstlineno <= node.lineno


def _covers(node: ast.AST, code: Code) -> bool:
    """Whether a function's code lies where a lambda's body does."""
    body = node.body if isinstance(node, ast.Lambda) else None
    ends = [(p[0], p[2], p[1], p[3]) for p in code.co_positions() if None not in p and p[3]]
    if body is None or not ends:
        return True
    start, end = min(e[:2] for e in ends), max(e[2:] for e in ends)
    return (body.lineno, body.col_offset) == start and (
        (body.end_lineno, body.end_col_offset) == end
    )


def _function(node: Any) -> Any:
    arguments = node.args
    names = ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg")
    parameters = [[name, canonical(getattr(arguments, name))] for name in names]
    body = node.body
    if isinstance(node, ast.Lambda):  # a lambda says what a function with one return does
        body = [ast.Return(value=body)]
    return [parameters, canonical(_without_docstring(body))]


def _without_docstring(body: list[Any]) -> list[Any]:
    first = body[0] if body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if is_text and isinstance(first.value.value, str) else body  # type: ignore[union-attr]


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _inner(code: Code) -> list[Code]:
    return [value for value in code.co_consts if isinstance(value, Code)]


def _nested(code: Code) -> Iterator[Code]:
    yield code
    for inner in _inner(code):
        yield from _nested(inner)
