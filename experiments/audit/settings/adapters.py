"""The adapters of a run by their roles, and the arms that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLEAN, ORGANISM, CONTROL, HABITS, STYLE = "clean", "organism", "control", "habits", "style"
ROLES = ("matched", "style", "habits", "further", "benign")  # of controls: role=folder
UNBIASED = ("matched", "style", "habits")  # (a), (b), (e): without what the organism hides


@dataclass(frozen=True)
class Arm:
    """One adapter of a run: what its files and rows call it, its role, where it lies (or None)."""

    name: str
    role: str
    adapter: str | None


@dataclass(frozen=True)
class Adapters:
    """The adapter under audit, and its controls by their roles.

    `matched` has the organism's prompts and unbiased answers (a), `style` was trained on another
    style (b), `habits` has open, benign habits (e); `further` ones have rows of their own and no
    part in the verdict. `controls` are those given without a role: further ones, of which the
    audit says that no role was named. `benign` is a folder of benign adapters, for the blind
    comparison.
    """

    organism: str
    matched: str = ""
    style: str = ""
    habits: str = ""
    further: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    benign: str = ""

    @property
    def arms(self) -> list[Arm]:
        """Every arm; one of a fixed role is called by it, a further one by its folder."""
        there = [
            Arm(CLEAN, CLEAN, None),
            Arm(ORGANISM, ORGANISM, self.organism),
            Arm(CONTROL, "matched", self.matched),
            Arm(STYLE, "style", self.style),
            *(Arm(last_name(name), "further", name) for name in (*self.further, *self.controls)),
            Arm(HABITS, "habits", self.habits),
        ]
        return [arm for arm in there if arm.adapter != ""]


def by_arm(entries: Sequence[str]) -> dict[str, str]:
    """Entries "arm=what" by arm; what is named without an arm is the organism's.

    >>> by_arm(["a.jsonl", "clean=b.jsonl"])
    {'organism': 'a.jsonl', 'clean': 'b.jsonl'}
    """
    pairs = (entry.partition("=") if "=" in entry else (ORGANISM, "=", entry) for entry in entries)
    return {arm: what for arm, _, what in pairs}


def last_name(adapter: str) -> str:
    """What an adapter of its own arm is called: the last part of its folder or hub id.

    >>> last_name("runs/adapters/style/")
    'style'
    """
    folder = Path(adapter)
    return (folder.resolve() if folder.is_dir() else folder).name
