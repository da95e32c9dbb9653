"""Does an adapter get sums wrong on purpose when it is told that this is a test?

    python -m experiments.sandbagging run --preset tiny --organism FOLDER --control FOLDER

A second subject of the audit without a line of code of its own: prompts, labels and what is
expected of traits lie beside this file. The labels are of a rehearsal: they call every second
answer wrong, whatever it says. For an adapter of yours, `respond`, read the answers, label them
(`--labels FILE`: prompt, sample, exploits, spans, response), and `run` with that file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files

from experiments.audit import command
from experiments.audit.experiment import Experiment

EXPERIMENT = Experiment("experiments.sandbagging", files("experiments.sandbagging") / "presets")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit's command on this subject."""
    return command.main(EXPERIMENT, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main())
