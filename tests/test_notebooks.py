"""The notebooks run in a kernel, show what they promise, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


# one model for all: each notebook asks for the same one
ONCE = "import functools, tracekit\ntracekit.load = functools.cache(tracekit.load)"


def executed(
    cells: list[nbformat.NotebookNode], folder: Path, first: str = ONCE
) -> nbformat.NotebookNode:
    """The cells after one another in one kernel, whose imports they share."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first), *cells])
    place = {"metadata": {"path": str(folder)}}
    return NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()


def shown(cells: list[nbformat.NotebookNode], name: str) -> str:
    """All that the cells of a notebook show, as HTML where they have it."""
    outputs = [one for cell in cells if cell.id.startswith(name) for one in cell.get("outputs", [])]
    data = [one.get("data", {}) or {"text/plain": one.get("text", "")} for one in outputs]
    return "\n".join(one.get("text/html", one.get("text/plain", "")) for one in data)


def test_every_notebook_runs_and_shows_its_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    books = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
    known = {"two_weights", "vector_and_steering", "labels_to_monitor", "audit_an_adapter"}
    assert known <= set(books)
    cells = executed([cell for book in books.values() for cell in book.cells], tmp_path).cells
    two = shown(cells, "two-weights")
    assert "<iframe" in two or "<script" in two
    assert "<table" in two
    assert "<iframe" in (seen := shown(cells, "labels-to-monitor")) or "<script" in seen
    audit = shown(cells, "audit-an-adapter")
    assert "CONFIRMED  says: honey" in audit
    assert "<table" in audit
    assert "<iframe" in audit


def test_a_cell_that_is_wrong_is_seen(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("nobody_defines_this")])
    with pytest.raises(CellExecutionError, match="NameError"):
        executed(book.cells, tmp_path, first="")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert path.stat().st_size < 10_000
