"""The folder of one steering study: every entry by name, and what it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tracekit as tk


@dataclass(frozen=True)
class Study:
    """The folder `<run>/steering-<hash>`, whose settings and table lie as those of a run do.

    >>> Study(Path("runs/x/steering-0")).figure("frontier").as_posix()
    'runs/x/steering-0/frontier.png'
    """

    folder: Path

    @property
    def seen(self) -> Path:
        """Response means on the organism's own answers: (weights, prompt, dim)."""
        return self.folder / "seen.nc"

    @property
    def directions(self) -> Path:
        """What the organism is edited along: (direction, dim)."""
        return self.folder / "directions.nc"

    @property
    def unedited(self) -> Path:
        """What the organism says without an edit: transcripts (prompt, token)."""
        return self.folder / "unedited.nc"

    @property
    def validation(self) -> Path:
        """What each vector does to the clean model, by trait and strength."""
        return self.folder / "validation.nc"

    @property
    def edits(self) -> Path:
        """The folder of edits, a file an edit."""
        return self.folder / "edits"

    @property
    def clean_traces(self) -> Path:
        """The folder of the clean model's residuals that are patched in, in shards."""
        return self.folder / "clean_traces"

    @property
    def patching(self) -> Path:
        """What patching each layer does; not there where no response exploits."""
        return self.folder / "patching.nc"

    @property
    def summary(self) -> Path:
        """All edits side by side, with intervals."""
        return self.folder / "steering.nc"

    def figure(self, name: str) -> Path:
        """A figure of the study."""
        return self.folder / f"{name}.png"

    def make_once(self, path: Path, make: Callable[[], Any]) -> Any:
        """What lies at `path`, made first if it is not there."""
        if not path.is_file():
            tk.save(make(), path)
        return tk.open(path)
