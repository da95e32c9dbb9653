"""The command `tracekit`: one door to what runs from a shell.

Each subcommand imports what it needs when it is asked for, so that `tracekit --help` answers at
once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise


@dataclass(frozen=True)
class Command:
    """What a subcommand does, and whose `main` does it; `first` comes before the user's words."""

    does: str
    module: str
    first: tuple[str, ...] = ()


AUDIT = "experiments.rm_sycophancy.__main__"
OWN = "experiments.audit.own.adapter_audit"
# of `experiments.audit.command`, which is not imported for a help text
PHASES = ("extract", "respond", "capture", "replay", "project", "analyse", "run", "steer", "plan")
COMMANDS = {
    "audit": Command("what an ADAPTER hides; or a shipped audit, --preset smollm2", AUDIT),
    "plan": Command("memory, disk and hours of an audit, before any download", AUDIT, ("plan",)),
    "lint": Command("what a reviewer would say of contrast sets", "traits.contrast_sets.linting"),
    "check": Command(
        "prove that a model's names mean what they say", "experiments.command_line.check"
    ),
    "view": Command(
        "a file's values token by token, as one HTML page", "experiments.command_line.view"
    ),
    "capture": Command(
        "a model's internals on prompts, as a folder of netCDF", "experiments.command_line.capture"
    ),
    "portable": Command(
        "a capture for any reader of netCDF or HDF5", "experiments.command_line.portable"
    ),
    "organisms": Command(
        "benign adapters like one of yours, the null of an audit; organisms to practise on",
        "experiments.organisms.__main__",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code, or 2 with one line on stderr for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        there = ", ".join(COMMANDS)
        print(f"tracekit: {name!r} was asked for; there is {there}.", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    if name == "audit" and not _is_shipped(rest):
        return int(import_module(OWN).main(rest) or 0)
    words = [*command.first, *_with_phase(name, rest)]
    called = (f"tracekit {name}",) if command.module == AUDIT else ()
    return int(import_module(command.module).main(words, *called) or 0)


def _is_shipped(rest: list[str]) -> bool:
    """Whether an audit is of the shipped subject: a phase, or a shipped preset."""
    named = [a.partition("=")[2] or b for a, b in pairwise([*rest, ""]) if _is_preset(a)]
    return bool(rest) and (rest[0] in PHASES or (rest[0].startswith("-") and bool(named)))


def _is_preset(word: str) -> bool:
    return word == "--preset" or word.startswith("--preset=")


def _with_phase(name: str, rest: list[str]) -> list[str]:
    """An audit without a phase is all of them."""
    whole = name == "audit" and rest[0] not in PHASES
    return ["run", *rest] if whole else rest


def usage() -> str:
    """What there is, a line a subcommand."""
    lines = [f"  tracekit {name:<9} {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Read, label, compare and edit the internals of language models and their adapters.",
            "",
            *lines,
            "",
            "tracekit COMMAND --help says what each takes; --debug shows an error's traceback.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
