"""The architecture page names every folder, and the rooms in the order in which they import."""

import re
from pathlib import Path

from tests.test_structure import PACKAGES, ROOMS, ROOT

PAGE = ROOT / "docs" / "architecture.md"


def rooms_of(text: str) -> list[str]:
    """The folders that a page's tables give a row, in its order."""
    return re.findall(r"^\| `((?:tracekit|traits|experiments)/[\w/]+)` \|", text, re.MULTILINE)


def folders() -> set[str]:
    inits = (path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py"))
    return {path.parent.relative_to(ROOT).as_posix() for path in inits} - set(PACKAGES)


def test_every_folder_has_its_row_once():
    named = rooms_of(PAGE.read_text())
    assert len(named) == len(set(named))
    assert set(named) == folders(), "give each folder one row of docs/architecture.md"


def test_the_tables_are_in_the_order_of_imports():
    named = rooms_of(PAGE.read_text())
    for package, order in ROOMS.items():
        first = [name.split("/")[1] for name in named if name.startswith(package)]
        assert tuple(dict.fromkeys(first)) == order


def test_a_row_that_is_lacking_is_seen():
    page = PAGE.read_text().replace("| `tracekit/edits` |", "| edits |")
    assert folders() - set(rooms_of(page)) == {"tracekit/edits"}


def test_every_path_on_the_page_exists():
    named = re.findall(r"`([\w/]+/[\w./]*)`", PAGE.read_text())
    lacking = [name for name in named if not Path(ROOT, name).exists()]
    assert lacking == []
