"""Docstring examples run with the tests, and one that is wrong fails there."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULE = '''
def twice(number):
    """
    >>> twice(np.arange(3)).tolist()
    [0, 2, 4]
    """
    return 2 * number


def thrice(number):
    """
    >>> thrice(2)
    7
    """
    return 3 * number


def vectors():
    """
    >>> vectors()
    'its own, whatever else has that name'
    """
    return "its own, whatever else has that name"


def unknown():
    """
    >>> nobody_defines_this
    1
    """
'''


def outcomes(path: Path) -> dict[str, str]:
    """passed, failed or error, by the name of the example."""
    # the configuration and conftest of `make test`
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-v", *options, str(path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    words = [line.split() for line in shown.splitlines() if "::" in line and "%]" in line]
    return {one[0].rpartition(".")[2]: one[1].lower() for one in words}


def test_an_example_that_says_something_else_or_names_what_nobody_defines_fails(tmp_path):
    path = tmp_path / "shown.py"
    path.write_text(MODULE, "utf-8")
    expected = {"twice": "passed", "thrice": "failed", "vectors": "passed", "unknown": "failed"}
    assert outcomes(path) == expected


def test_a_run_of_all_tests_reads_every_package_that_is_installed():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    installed = configuration["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(installed) < set(configuration["pytest"]["ini_options"]["testpaths"])
