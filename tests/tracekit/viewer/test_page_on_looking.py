"""The page on looking: every snippet runs, prints what it should, and leaves its files."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "looking.md").read_text("utf-8")


def test_every_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(ROOT / "datasets", tmp_path / "datasets")
    printed: list[object] = []
    names = {"print": printed.append}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, str(tmp_path / "page.py"), "exec"), names)
    assert printed == ["surprise.html", ["on", "off"]]
    for name, rows in (("surprise.html", 2), ("both.html", 4)):
        page = Path(name).read_text("utf-8")
        assert len(re.findall(r'id="row-\d-\d-codes"', page)) == rows
