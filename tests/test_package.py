"""What a stranger gets from `pip install .`, and which way imports point."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tracekit.storage import identity

ROOT = Path(__file__).parent.parent
# transformers asks for it where a device_map spreads a model
NEVER_IMPORTED = {"accelerate"}
FORBIDDEN = {
    "tracekit": r"^\s*(from|import) (traits|experiments)\b",
    "traits": r"^\s*(from|import) (experiments|nnsight)\b",
    "experiments": r"^\s*(from|import) nnsight\b",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked where nothing of the checkout can be seen."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder), str(ROOT)], check=True)
    return folder


def test_data_files_are_found_outside_the_checkout(installed, tmp_path):
    code = (
        "from tracekit.model.embedded import datasets; import tracekit.model.embedded as r;"
        "print(r.__file__); print(len(list(datasets('traits', 'alignment').iterdir())));"
        "print(datasets('prompts', 'embedded_calibration.json').is_file())"
    )
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    where, traits, prompts = done.stdout.split("\n")[:3]
    assert where.startswith(str(installed))
    assert int(traits) >= 2
    assert prompts == "True"


def test_the_command_runs_outside_the_checkout(installed, tmp_path):
    script = installed / "bin" / "tracekit"
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    expected = {
        ("--help",): "tracekit capture",
        ("audit", "--help"): "--search-only",
        ("audit", "run", "--help"): "--organism",
        ("plan", "--preset", "llama-70b"): "verdict: fits",
    }
    for arguments, words in expected.items():
        done = subprocess.run(
            [sys.executable, "-P", str(script), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    for stub in ("tracekit/__init__.pyi", "traits/__init__.pyi", "tracekit/py.typed"):
        assert (installed / stub).is_file()
    assert (installed / "experiments" / "command_line" / "view.html").is_file()


def _violations(package: str, pattern: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "benchmarks" not in path.parts
        for line in path.read_text().splitlines()
        if re.match(pattern, line)
    ]


@pytest.mark.parametrize(("package", "pattern"), FORBIDDEN.items())
def test_imports_point_one_way(package, pattern):
    assert _violations(package, pattern) == []


def test_the_import_check_sees_a_violation(tmp_path, monkeypatch):
    (tmp_path / "tracekit").mkdir()
    (tmp_path / "tracekit" / "bad.py").write_text("from traits import extract\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert _violations("tracekit", FORBIDDEN["tracekit"]) == [
        "tracekit/bad.py: from traits import extract"
    ]


def test_importing_changes_no_global_option():
    code = (
        "import torch, numpy, xarray, warnings\n"
        "def state(): return (torch.get_default_dtype(), torch.get_num_threads(),"
        " torch.is_grad_enabled(), dict(xarray.get_options()), numpy.geterr(),"
        " len(warnings.filters))\n"
        "import nnsight, transformers, peft, numcodecs\n"
        "before = state(); import tracekit, traits; after = state(); print(before == after)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("True")


def _named(requirements: Iterable[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


def _imported() -> set[str]:
    distributions, found = packages_distributions(), set()
    files = [path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py")]
    # rivals run in an interpreter of their own
    files = [path for path in files if path.parent.name != "rivals"]
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found |= {name.split(".")[0] for name in names}
    # benchmarks take models and oracles from the tests; they run in a checkout only
    foreign = found - set(sys.stdlib_module_names) - {*FORBIDDEN, "tests"}
    return _named(distributions[name][0] for name in foreign)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = _named(project["dependencies"])
    extra = _named(line for lines in project["optional-dependencies"].values() for line in lines)
    imported = _imported()
    assert imported - needed - extra == set()
    assert needed - imported == NEVER_IMPORTED


def test_the_version_is_one_and_the_name_on_the_index_is_free_for_us():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {project['version']}\n" in citation
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == project["version"]
    # another project is called tracekit there
    assert project["name"] == identity.DISTRIBUTION != "tracekit"
    assert {"audit", "quantised", "docs"} <= set(project["optional-dependencies"])


def test_the_citation_has_a_date_once_the_version_is_released():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[0]
    assert ("\ndate-released:" in citation) == ("unreleased" not in newest)


def test_every_extra_is_named_where_one_starts_and_an_alias_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    start = (ROOT / "docs" / "start.md").read_text("utf-8")
    (sentence,) = re.findall(r"^Extras are .*$", start, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(project["optional-dependencies"])
    assert set(project["optional-dependencies"]["vectors"]) <= set(project["dependencies"])


def test_the_readme_counts_the_notebooks():
    count = len(list((ROOT / "docs" / "notebooks").glob("*.ipynb")))
    word = ("no", "one", "two", "three", "four", "five", "six")[count]
    assert f"{word} uses in a notebook" in (ROOT / "README.md").read_text("utf-8")
