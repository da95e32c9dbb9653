"""Which prompts are steered, and which only make the mean difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.labels import Labeller, decides
from experiments.audit.settings.groups import Settings
from experiments.audit.steering.dose_settings import Steering
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import take

QUESTIONS = "neutral_questions.json"


def steered_and_others(
    settings: Settings, steering: Steering, labeller: Labeller | None
) -> tuple[list[tk.Prompt], list[tk.Prompt]]:
    """Prompts whose bias the labeller detects: those that are steered, and others beside them.

    Prompts of the audit's split come first (those kept from training); where they are too few,
    others fill up, and the label `split` says which are which.

    Errors: `ValueError` when no prompt has a detector, or too few do.
    """
    prompts = tk.read_prompts(settings.prompts.paths[0])
    known = [p for p in prompts if decides(labeller, str(p.labels.get("bias", "")))]
    first = [p for p in known if p.labels.get("split") == settings.prompts.split]
    rest = [p for p in known if p not in first]
    wanted, needed = steering.steered, steering.steered + steering.difference_prompts
    if len(known) < needed:
        raise InputError(
            f"{needed} prompts were asked for ({wanted} to steer, {steering.difference_prompts} "
            f"for the mean difference); {len(known)} of {len(prompts)} in "
            f"{settings.prompts.paths[0].name!r} have a bias that a rule detects. Ask for fewer."
        )
    picks = take(first, wanted) if first else []
    picks += take(rest, wanted - len(picks)) if len(picks) < wanted else []
    others = [p for p in [*rest, *first] if p not in picks]
    return picks, take(others, steering.difference_prompts)


def neutral_questions(model: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Plain questions with a right and with a wrong answer: two transcripts, row by row.

    Errors: `FileNotFoundError` when the shipped file is not there.
    """
    path = Path(datasets("prompts", QUESTIONS))
    rows = json.loads(path.read_text("utf-8"))["prompts"]
    asked = [tk.Prompt(f"neutral_questions/{row['id']}", text=row["text"]) for row in rows]
    right = tk.encode(model, asked, [row["right"] for row in rows])
    return right, tk.encode(model, asked, [row["wrong"] for row in rows])
