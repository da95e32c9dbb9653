"""The steering experiments of a run, as the page shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.audit.report.figures import inline
from experiments.audit.run import Run
from experiments.audit.steering.study_folder import Study

CAPTIONS = {
    "dose_response": "Exploitation rate against the strength that is added, by direction.",
    "frontier": "Rate against coherence: what an edit costs in perplexity under the clean model.",
    "by_bias": "By bias: the trait edit of each kind that drops most (chosen on these prompts).",
    "patching": "Clean residuals in the organism's place, a layer at a time: where it dies.",
}


def experiments(folder: Path) -> list[dict[str, Any]]:
    """The `name`, `table` and `figures` that each `steer` left in a run's folder; none yet: empty.

    >>> experiments(Path("runs/nothing-here"))
    []
    """
    return [_experiment(study) for study in Run(folder).studies]


def _experiment(folder: Path) -> dict[str, Any]:
    captions = {Study(folder).figure(name): caption for name, caption in CAPTIONS.items()}
    return {
        "name": folder.name,
        "table": Run(folder).table.read_text("utf-8"),
        "figures": [inline(path, text) for path, text in captions.items() if path.is_file()],
    }
