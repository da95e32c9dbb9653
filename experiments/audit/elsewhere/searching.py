"""A search's first answers from a server: the bare model's and the adapter's, as served there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.elsewhere.keeping import asked
from experiments.audit.elsewhere.sources import held_against, server_of
from experiments.audit.settings.adapters import CLEAN, ORGANISM
from experiments.audit.settings.groups import Answers
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.encode import subset
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.answer_files import read_answers
from tracekit.transcripts.row_ids import response_ids


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
        """The server's answers as transcripts, kept in `path` as they come.

        A begun answer is gone on with; `begun` is how many response tokens were given. Of those
        that are not, a sample is held against the loaded weights.

        Errors: as `sources.answers`.
        """
        arm = self.arms[adapter]
        server = server_of(self.answers, arm, model, temperature, tokens)
        rows = tk.encode(model, prompts, template=template)
        lines = read_answers(asked(server, rows, path, 1, seed))
        said = {line.key: line.responses[0] for line in lines}
        bare = [_bare(prompt) for prompt in prompts]
        ids, begun = [], []
        for prompt, (before, given) in zip(bare, _ids(rows), strict=True):
            whole = [*before, *given]
            new, _ = response_ids(
                model.tokenizer, prompt, said[prompt.id], whole, template, None, {}
            )
            ids.append([*given, *new])
            begun.append(len(given))
        runs = tk.encode(model, bare, responses=ids, template=template)
        kept = sum(one.ids is not None for one in said.values())
        text = {"served": [server.name], "ids_kept": kept, "tokenised_here": len(said) - kept}
        runs = stamp(runs, {**read(runs), "text": text})
        own = [prompt.id for prompt, count in zip(bare, begun, strict=True) if not count]
        if own:
            what = f"The answers of the arm {arm!r} ({server.name!r})"
            told = held_against(model, adapter, subset(runs, prompt=own), temperature, what)
            runs = stamp(runs, {**read(runs), "text": read(told)["text"]})
        return runs.assign_coords(begun=("prompt", begun))


def _bare(prompt: Prompt) -> Prompt:
    """A prompt without the answer that it begins."""
    messages = prompt.messages[: len(prompt.messages) - len(prompt.reply)]
    return replace(prompt, messages=messages)


def _ids(rows: xr.Dataset) -> list[tuple[list[int], list[int]]]:
    """Of each row the ids of its prompt and of its begun answer."""
    sides = rows["token"].values < 0
    table = rows.token_id.transpose("prompt", "token").values
    return [(row[sides & (row >= 0)].tolist(), row[~sides & (row >= 0)].tolist()) for row in table]
