"""What the pages show beside Python: every command parses, every table of settings is TOML."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from experiments.command_line import main as command_line

ROOT = Path(__file__).parent.parent
PAGES = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# commands of others, which are not ours to parse
OTHERS = {
    "cat": "shows a file",
    "inspect": "inspect_ai's; docs/inspect.md's Python, which is run, takes the same model",
    "pip": "installs",
    "python3": "makes an environment",
    "vllm": "a server's",
}
# languages whose blocks are not looked at, and why
LEFT = {"python": "tests/test_docs.py runs them", "r": "R is not installed where tests run"}


class ParsedError(BaseException):
    """Raised in the place of what would run; no handler of a command's own errors takes it."""


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Whether a command's own parser takes a line, which is not run."""
    original = argparse.ArgumentParser.parse_args

    def stopped(self: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        original(self, *given, **named)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopped)

    def parses(line: str) -> bool:
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            makefile = (ROOT / "Makefile").read_text("utf-8")
            return all(re.search(rf"^{re.escape(word)}:", makefile, re.M) for word in words)
        main: Callable[[list[str]], int] = command_line.main
        if program == "python":
            assert words[0] == "-m"
            module = words[1]
            named = module if (ROOT / f"{module.replace('.', '/')}.py").exists() else None
            main, words = import_module(named or f"{module}.__main__").main, words[2:]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            try:
                main(words)
            except ParsedError:
                return True
        return False

    return parses


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Each page's blocks of a language."""
    for page in PAGES:
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            yield page.name, block


def lines() -> list[tuple[str, str]]:
    """Each page's lines of a shell; what goes on behind a backslash is one."""
    joined = [(page, block.replace("\\\n", " ")) for page, block in blocks("bash")]
    return [(page, line.strip()) for page, block in joined for line in block.splitlines() if line]


COMMANDS = [(page, line) for page, line in lines() if line.split()[0] not in OTHERS]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text[:60])
def test_a_command_of_the_pages_parses(page: str, line: str, parses: Callable[[str], bool]) -> None:
    assert parses(line), f"{page} shows a command that is refused: {line}"


@pytest.mark.parametrize(
    "line",
    [
        "tracekit audit ./my-lora --modle ./my-base",
        "tracekit adit ./my-lora",
        "tracekit portable",
        "python -m experiments.rm_sycophancy runn --preset smollm2",
        "make nothing",
    ],
)
def test_a_command_that_is_wrong_is_seen(line: str, parses: Callable[[str], bool]) -> None:
    assert not parses(line)


def test_there_are_commands_of_every_kind_and_no_others_are_named_in_vain() -> None:
    programs = {line.split()[0] for _, line in lines()}
    assert programs == {"tracekit", "python", "make", *OTHERS}
    assert sum(line.startswith("tracekit ") for _, line in COMMANDS) >= 6


def test_every_block_of_toml_is_toml() -> None:
    tables = [tomllib.loads(block) for _, block in blocks("toml")]
    assert tables
    assert all(tables)
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads("[brand\nsays = 1")


def test_every_block_is_of_a_language_that_is_looked_at_or_left_with_a_reason() -> None:
    texts = [page.read_text("utf-8") for page in PAGES]
    named = {name for text in texts for name in re.findall(r"^ *```(\w+)", text, re.M)}
    assert named == {"bash", "toml", *LEFT}
