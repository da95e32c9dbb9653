"""A search's first answers from a server: the bare model's and the adapter's, as served there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.elsewhere.keeping import asked
from experiments.audit.elsewhere.sources import held_against, server_of
from experiments.audit.settings.adapters import CLEAN, ORGANISM
from experiments.audit.settings.groups import Answers
from tracekit.transcripts.prompts import Prompt


@dataclass(frozen=True)
class Served:
    """Where the two models of a search are served, and their names; `arms` by their adapter."""

    answers: Answers
    arms: Mapping[str | None, str] = field(default_factory=dict)

    @classmethod
    def of(cls, adapter: str, at: str, model: str, adapters: Sequence[str]) -> Served | None:
        """That of an adapter at an address; None without one."""
        if not at:
            return None
        answers = Answers(server=at, served_model=model, served_adapter=tuple(adapters))
        names: dict[str | None, str] = {None: CLEAN} if model else {}
        return cls(answers, {**names, **({adapter: ORGANISM} if adapters else {})})

    def described(self) -> dict[str, Any]:
        """What a folder of answers is claimed with."""
        told = self.answers
        return {"server": [told.server, told.served_model, *told.served_adapter]}

    def answers_of(self, adapter: str | None, prompts: Sequence[Prompt]) -> bool:
        """Whether these answers are the server's: it goes on with none that are begun."""
        return adapter in self.arms and not any(prompt.answer for prompt in prompts)

    def sampled(
        self,
        model: Any,
        adapter: str | None,
        prompts: Sequence[Prompt],
        template: str,
        path: Path,
        tokens: int,
        temperature: float,
        seed: int,
    ) -> xr.Dataset:
        """The server's answers as transcripts, kept in `path` as they come, `begun` with nothing.

        Errors: as `sources.answers`.
        """
        arm = self.arms[adapter]
        server = server_of(self.answers, arm, model, temperature, tokens)
        rows = tk.encode(model, prompts, template=template)
        kept = asked(server, rows, path, 1, seed)
        runs = tk.encode(model, prompts, responses=kept, template=template)
        what = f"The answers of the arm {arm!r} ({server.name!r})"
        runs = held_against(model, adapter, runs, temperature, what)
        return runs.assign_coords(begun=("prompt", [0] * runs.sizes["prompt"]))
