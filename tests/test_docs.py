"""The documentation: every snippet runs, no name is missing, and no link leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracekit as tk
import traits

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p.stem for p in DOCS.glob("*.md") if "```python" in p.read_text("utf-8"))
TESTS = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
# those that the tests of what they are about run
ELSEWHERE = {
    name for name in PAGES if any(f"{name}.md" in path.read_text("utf-8") for path in TESTS)
}
# what a page prints, where it is not numbers and texts of the model
PRINTED: dict[str, list[Any]] = {
    "concepts": ["residual", [12], None],
    "start": [("prompt", "token", "layer", "dim"), ("layer",), True, "surprise.html"],
    "trace_base_and_lora": [("layer",), ("prompt", "token"), ("prompt", "token", "dim")],
    "results_elsewhere": [
        4,
        (2,),
        ["No.", "Yes, it is."],
        ".",
        True,
        ("prompt", "token", "layer", "dim"),
    ],
    "steering": [1, True, 3, True],
    "trait_vectors": [
        ("layer", "dim"),
        ("prompt", "token", "layer"),
        ("prompt", "layer"),
        ("prompt", "token", "layer", "trait"),
    ],
    "inspect": ["success", True, ("prompt", "token", "layer", "dim")],
    "agents": [],
}


@pytest.fixture
def run(
    embedded: tk.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[Any]]:
    """Runs a text's snippets one after the other, in a folder of their own; what they print."""
    monkeypatch.chdir(tmp_path)
    os.symlink(ROOT / "datasets", tmp_path / "datasets")
    monkeypatch.setattr(tk, "load", lambda name: embedded)

    def run(text: str) -> list[Any]:
        printed: list[Any] = []
        space: dict[str, Any] = {"print": lambda *values: printed.extend(values)}
        for n, snippet in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            path = tmp_path / f"snippet_{n}.py"
            path.write_text(snippet, "utf-8")  # nnsight reads the source of a trace
            exec(compile(snippet, str(path), "exec"), space)
        return printed

    return run


@pytest.mark.parametrize("name", sorted(set(PAGES) - ELSEWHERE))
def test_the_snippets_of_a_page_run_and_print_what_they_should(
    name: str, run: Callable[[str], list[Any]]
) -> None:
    printed = run((DOCS / f"{name}.md").read_text("utf-8"))
    assert printed
    for value in PRINTED.get(name, []):
        assert any(value is one or (type(value) is type(one) and value == one) for one in printed)


def test_a_snippet_that_is_wrong_is_seen(run: Callable[[str], list[Any]]) -> None:
    with pytest.raises(NameError):
        run("```python\nprint(1)\n```\n\n```python\nnobody_defines_this\n```")


@pytest.mark.parametrize("package", [tk, traits])
def test_every_public_name_has_its_place_in_the_reference(package: Any) -> None:
    name = package.__name__
    listed = re.findall(rf"^::: {name}\.(\w+)$", (DOCS / f"api_{name}.md").read_text(), re.M)
    # nnsight's own
    assert sorted({*listed, *({"Model"} & {*package.__all__})}) == sorted(package.__all__)
    assert len(listed) == len(set(listed))


def test_the_readme_is_one_screen_and_its_links_are_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    links = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(links) > 15
    pictures = [path for path in (DOCS / "images").iterdir() if path.stat().st_size > 150_000]
    assert pictures == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, where a link that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_whole_and_asks_the_network_for_nothing(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")} - {"404"}
    assert pages == {path.stem for path in DOCS.glob("*.md")}
    loaded = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(https?:[^\"]*)\"")
    for path in site.glob("*.html"):
        asked = [
            link for link in loaded.findall(path.read_text("utf-8")) if "canonical" not in link
        ]
        assert asked == [], path.name
    assert not re.search(r"url\(https?:", "".join(p.read_text() for p in site.rglob("*.css")))


def test_the_reference_shows_signatures_and_examples_as_code(site: Path) -> None:
    text = (site / "api_tracekit.html").read_text("utf-8")
    assert 'id="tracekit.capture"' in text
    assert "<blockquote>" not in text
    assert "nonfinite" in text
