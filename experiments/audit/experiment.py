"""What an experiment brings to the audit: presets, and who labels. It knows no more of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

import tracekit as tk
from experiments.audit.labels import Labeller
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.presets import read_preset, shipped


@dataclass(frozen=True)
class HubSet:
    """Prompts on the hub: `read` (split, source) them; the part that each split plays.

    `rows` of a split and `tokens` of a prompt are what a plan counts with.
    """

    read: Callable[[str, str], Sequence[tk.Prompt]]
    parts: Mapping[str, str]
    rows: int
    tokens: int


@dataclass(frozen=True)
class Experiment:
    """One subject of the audit.

    `module` is what `python -m` takes; `presets` a folder of TOML files, with the files that they
    name; `labeller` says what exploits in an answer (none: a file of labels, or nothing is
    decided), `labellers` otherwise by an arm's role; `hub` reads prompts that lie on the hub.

    >>> Experiment("mine.audit", presets).preset("tiny").preset
    'tiny'
    """

    module: str
    presets: Traversable
    labeller: Labeller | None = None
    labellers: Mapping[str, Labeller] = field(default_factory=dict)
    hub: HubSet | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.module.rpartition(".")[2]

    @property
    def shipped(self) -> list[str]:
        """The names of its presets."""
        return shipped(self.presets)

    def preset(self, name: str, changes: Mapping[str, Any] | None = None) -> Settings:
        """A preset's settings, with `changes` to single ones by their options' names."""
        return read_preset(self.presets, name, changes)

    def labeller_of(self, role: str) -> Labeller | None:
        """Who labels the answers of an arm with this role."""
        return self.labellers.get(role, self.labeller)
