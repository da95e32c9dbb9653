"""Where modules may lie and which way they may import: rooms in order, no circle, none too full."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tracekit", "traits", "experiments")
# each imports from those before it only
ROOMS = {
    "tracekit": (
        "storage",
        "transcripts",
        "model",
        "edits",
        "passes",
        "viewer",
        "inspect_provider",
    ),
    "traits": ("statistics", "contrast_sets", "vectors", "probes"),
    "experiments": (
        "audit",
        "rm_sycophancy",
        "sandbagging",
        "organisms",
        "benchmarks",
        "command_line",
    ),
}
MODULES_A_FOLDER, LINES_A_MODULE = 16, 300


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """Each module of the packages, by its dotted name; a package by its own."""
    found = {}
    for path in (path for package in packages for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules among `known` that a module's import statements name, wherever they stand."""
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                wanted.add(whole if whole in known else node.module)
    return {one for one in wanted if one in known and one != name}


def arrows(root: Path, *packages: str) -> dict[str, set[str]]:
    known = modules(root, *packages)
    return {name: imported(name, path, known) for name, path in known.items()}


def backward(found: dict[str, set[str]]) -> list[str]:
    """Imports from a room of a later one of the same package."""
    wrong = []
    for name, targets in found.items():
        for target in targets:
            package, room = (*name.split("."), "")[:2]
            later, order = (*target.split("."), "")[1], ROOMS[package]
            if room in order and later in order:
                wrong += [f"{name} → {target}"] * (order.index(room) < order.index(later))
    return sorted(wrong)


def circle(found: dict[str, set[str]]) -> list[str]:
    """The names of one circle of imports, or none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", ["tracekit", "traits", "experiments"])
def test_rooms_import_in_their_order_and_never_in_a_circle(package):
    found = arrows(ROOT, package)
    assert backward(found) == []
    assert circle(found) == []


def test_every_folder_is_a_room_with_its_place_in_the_order():
    for package, rooms in ROOMS.items():
        folders = {path.parent for path in (ROOT / package).glob("*/__init__.py")}
        assert {folder.name for folder in folders} == set(rooms)


def test_an_arrow_back_and_a_circle_are_seen(tmp_path):
    for room, text in (
        ("storage", "def f():\n    from tracekit.model import load\n"),
        ("model", "from tracekit.storage import load as files\n"),
    ):
        (tmp_path / "tracekit" / room).mkdir(parents=True)
        (tmp_path / "tracekit" / room / "load.py").write_text(text)
    found = arrows(tmp_path, "tracekit")
    assert backward(found) == ["tracekit.storage.load → tracekit.model.load"]
    assert set(circle(found)) == {"tracekit.storage.load", "tracekit.model.load"}


def test_no_folder_is_too_full_and_no_module_too_long():
    paths = [*modules(ROOT, *PACKAGES).values(), *(ROOT / "tests").rglob("*.py")]
    full = {f: n for f, n in Counter(p.parent for p in paths).items() if n > MODULES_A_FOLDER}
    assert full == {}, (
        f"make a room of a part of it: {MODULES_A_FOLDER} with __init__.py is the most"
    )
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    long = {path: n for path, n in lines.items() if n > LINES_A_MODULE}
    assert long == {}, f"part it by what it is for: {LINES_A_MODULE} lines are the most"


@pytest.mark.parametrize("package", ["tracekit", "traits", "experiments/audit"])
def test_no_two_modules_of_a_package_have_one_name(package):
    names = Counter(path.stem for path in (ROOT / package).rglob("*.py"))
    names.subtract(["__init__"] * names["__init__"])
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_two_test_modules_have_one_name():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("package", ["tracekit", "traits"])
def test_no_public_name_hides_a_module(package):
    table = ast.parse((ROOT / package / "__init__.py").read_text())
    public = {
        alias.asname or alias.name
        for node in ast.walk(table)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    beside = {path.stem for path in (ROOT / package).iterdir()}
    # a room that is itself public
    assert public & beside <= {"statistics"}
