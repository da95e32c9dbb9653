"""The page on edits: every snippet runs and prints what it should, and its table has every edit."""

import re
from pathlib import Path

import tracekit as tk

PAGE = (Path(__file__).parents[3] / "docs" / "edits.md").read_text("utf-8")


def test_every_snippet_runs(tmp_path):
    printed = []
    names = {"print": printed.append}
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        # a function of the page is recorded by its source, which must be in a file
        file = tmp_path / f"{number}.py"
        file.write_text(snippet, "utf-8")
        exec(compile(snippet, str(file), "exec"), names)
    assert printed == [[[" Paris"]], "mlp", True, 1, 8]


def test_the_table_has_edits_that_there_are():
    named = re.findall(r"`tk\.(\w+)`", "".join(re.findall(r"^\| `.*$", PAGE, re.MULTILINE)))
    assert named == ["steer", "ablate", "clamp", "knock_out", "patch", "edit"]
    assert all(hasattr(tk, name) for name in named)
