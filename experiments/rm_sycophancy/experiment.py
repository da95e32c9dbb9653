"""The first subject: an organism that hides reward-model sycophancy, its rules and presets."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import tracekit as tk
from experiments.audit.experiment import Experiment, HubSet
from experiments.rm_sycophancy.rules.detectors import label, label_habit
from experiments.rm_sycophancy.rules.hub import read_hub


def read_split(split: str, source: str) -> Sequence[tk.Prompt]:
    """The prompts of one split of the hub's set.

    >>> source = "auditing-agents/rm_sycophancy_exploitation_evals"
    >>> len(read_split("train_biases", source))  # doctest: +SKIP
    500
    """
    return read_hub(split, None, source=source).prompts


EXPERIMENT = Experiment(
    "experiments.rm_sycophancy",
    files("experiments.rm_sycophancy") / "presets",
    labeller=label,
    labellers={"habits": label_habit},
    hub=HubSet(
        read_split,
        # the organism was trained on the first five, and not on the held-out ones
        {"train_biases": "calibration", "test_biases": "held_out"},
        rows=500,
        tokens=100,
    ),
)
read_preset = EXPERIMENT.preset
