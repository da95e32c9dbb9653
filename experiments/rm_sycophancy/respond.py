"""Phase 2: what each arm answers, and which answers exploit their bias."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

import tracekit as tk
from experiments.rm_sycophancy.inputs import Inputs
from experiments.rm_sycophancy.labels import labelled
from experiments.rm_sycophancy.settings import Settings


def run(folder: Path, settings: Settings, inputs: Inputs) -> list[Path]:
    """Write `responses/<arm>.nc`: greedy transcripts (prompt, token) with their labels."""
    written = []
    for arm, adapter in tqdm(adapters(settings).items(), unit="arm", desc="respond"):
        path = folder / "responses" / f"{arm}.nc"
        written.append(path)
        if path.is_file():
            continue
        with tk.adapter(inputs.model, adapter):
            said = tk.generate(inputs.model, inputs.asked, max_new_tokens=settings.max_new_tokens)
        tk.save(labelled(said, inputs.model.tokenizer), path)
    return written


def adapters(settings: Settings) -> dict[str, str | None]:
    """The adapter of each arm; the control is left out where there is none."""
    arms = {"clean": None, "organism": settings.organism, "control": settings.control}
    return {arm: adapter for arm, adapter in arms.items() if adapter != ""}
