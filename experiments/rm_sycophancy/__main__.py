"""Audit an adapter with trait vectors: is it unlike its clean model, and when it exploits?

    python -m experiments.rm_sycophancy run --preset smollm2
    python -m experiments.rm_sycophancy run --preset smollm2 --prompts prompts.json --limit 40
    python -m experiments.rm_sycophancy analyse --out runs/smollm2-0123abcd
    python -m experiments.rm_sycophancy steer --out runs/smollm2-0123abcd
    python -m experiments.rm_sycophancy plan --preset llama-70b
    torchrun --nproc-per-node 2 -m experiments.rm_sycophancy run --preset … --tensor-parallel

Phases in order: extract, respond, capture, replay, project, analyse; `run` does all that have not
finished. `project` and `analyse` need no model, and no preset when `--out` names a run. `steer`
edits the organism of a finished run, with options of its own (`steer --help`); `plan` says what a
run needs before anything is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.audit import command
from experiments.rm_sycophancy.experiment import EXPERIMENT


def main(arguments: Sequence[str] | None = None, program: str = "") -> int:
    """Run the audit's command on this subject; `program` is how it was called."""
    return command.main(EXPERIMENT, str(__doc__), arguments, program)


if __name__ == "__main__":
    sys.exit(main())
