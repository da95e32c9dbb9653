"""Phase 2: what each arm answers, which answers exploit their bias, and edited answers."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

import tracekit as tk
from experiments.audit.elsewhere import agreement, sources
from experiments.audit.inputs import Inputs
from experiments.audit.phases import counterfactual
from experiments.audit.run import Run
from experiments.audit.settings.adapters import CLEAN
from experiments.audit.settings.groups import Settings
from tracekit.progress import Bar

SAMPLED = ("organism", "habits")  # the arms whose own answers are told apart


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write `responses/<arm>.nc`: transcripts (prompt, token) with their labels.

    Of an arm that a server answers, its replies as they came lie beside, `<arm>.jsonl`. The
    organism's come `samples` times; where it exploits, also `deleted.nc` (its answers without
    the exploiting spans) and `inserted.nc` (the clean weights' answers with them).
    """
    written = []
    for arm in Bar(settings.arms, unit="arm", desc="respond"):
        path = Run(folder).responses(arm)
        written.append(path)
        if not path.is_file():
            tk.save(answers(arm, settings, inputs, Run(folder)), path)
    return written + (edited(folder, inputs) if settings.adapters.organism else [])


def answers(arm: str, settings: Settings, inputs: Inputs, run: Run) -> xr.Dataset:
    """What one arm says, here or elsewhere, labelled."""
    sampled = arm in SAMPLED and settings.answers.temperature > 0
    if sources.is_elsewhere(arm, settings.answers):
        samples = settings.answers.samples if sampled else 1
        temperature = settings.answers.temperature if sampled else 0.0
        kept = run.responses(arm).with_suffix(".jsonl")
        given = settings, inputs.model, inputs.prompts, kept, samples, temperature
        said = sources.answers(arm, *given)
        _refuse_clean(arm, said, run)
        return inputs.labelled(settings.arms[arm], said)
    with tk.adapter(inputs.model, settings.arms[arm].adapter):
        said = tk.generate(
            inputs.model,
            inputs.asked,
            max_new_tokens=settings.answers.max_new_tokens,
            samples=settings.answers.samples if sampled else 1,
            temperature=settings.answers.temperature if sampled else 0.0,
            seed=settings.null.seed,
        )
    return inputs.labelled(settings.arms[arm], said)


def _refuse_clean(arm: str, said: xr.Dataset, run: Run) -> None:
    """Raise `ValueError` where an adapter's answers are those of the clean arm."""
    clean = run.responses(CLEAN)
    if arm != CLEAN and clean.is_file():
        agreement.refuse_same(said, tk.open(clean), f"The answers of the arm {arm!r}")


def edited(folder: Path, inputs: Inputs) -> list[Path]:
    """Write the counterfactual texts; none where no response exploits."""
    organism = tk.open(Run(folder).responses("organism"))
    clean = tk.open(Run(folder).responses("clean"))
    made = counterfactual.texts(organism, clean, inputs.model.tokenizer)
    written = []
    for name, runs in made.items():
        written.append(Run(folder).responses(name))
        tk.save(runs, written[-1])
    return written
