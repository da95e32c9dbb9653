"""Chats that ask for a trait or its opposite: does the vector of the stories find it there?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.run import Run
from tracekit.errors import InputError
from traits import ContrastSet, window_traces


def prompts(contrast: ContrastSet) -> list[tk.Prompt]:
    """Every chat prompt of a set under an instruction and under its opposite, positives first.

    From `steering.json`: `chat_prompts`, and `instructed` with as many `positive` as `negative`
    system turns, taken in turn. Twins share the group `<set>/<n>`; `label` is 1 or 0 and
    `instruction` the number of the instruction. Errors: `ValueError` for a set without them.

    >>> len(prompts(contrast)) >= 120
    True
    """
    asked, told = contrast.steering.get("chat_prompts"), contrast.steering.get("instructed", {})
    counts = [len(told.get(side, [])) for side in ("positive", "negative")]
    if not asked or not counts[0] or counts[0] != counts[1]:
        raise InputError(
            f"Chats of {contrast.name!r} were asked for; its steering.json has "
            f"{len(asked or [])} chat_prompts and {counts[0]} positive and {counts[1]} negative "
            'instructions. Write them, the instructions in pairs, or take evaluate = "quick".'
        )
    return [
        tk.Prompt(
            id=f"{contrast.name}/{side}/{n}",
            messages=(("system", told[side][n % counts[0]]), ("user", question)),
            group=f"{contrast.name}/{n}",
            labels={"label": int(side == "positive"), "instruction": n % counts[0]},
        )
        for side in ("positive", "negative")
        for n, question in enumerate(asked)
    ]


def capture(model: Any, contrast: ContrastSet, tokens: int, folder: Path) -> xr.DataArray:
    """The mean over each response's tokens, (prompt, layer, dim), made once a folder.

    The instruct model answers greedily with at most `tokens` tokens; the texts ride along as the
    coordinate `response`.
    """
    path = Run(folder).chats(contrast.name)
    if not path.is_file():
        runs = tk.generate(model, tk.encode(model, prompts(contrast)), max_new_tokens=tokens)
        # chats under one instruction begin alike: it is read once
        under = zip(runs.label.values, runs.instruction.values, strict=True)
        told = runs.assign_coords(group=("prompt", [f"{side}/{n}" for side, n in under]))
        means = window_traces(model, told, {"answer": slice(0, tokens)}).isel(window=0, drop=True)
        beside = {"group": runs["group"], "response": ("prompt", runs["response"].values)}
        tk.save(means.assign_coords(beside), path)
    return tk.open(path)
